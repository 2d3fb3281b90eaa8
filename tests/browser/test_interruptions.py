"""What the page does while the service restarts or nobody works: an engine without a model, that waits when told to."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import uvicorn
from playwright.sync_api import Page, expect
from redis import Redis

from jobs.blobs import BlobStore
from jobs.repository import EditRepository
from jobs.settings import Settings
from service.app import create_app
from tests.browser.conftest import OpenPage
from tests.browser.support import choose_sample
from tests.service.conftest import seen_a_moment_ago
from tests.support import FakeEngine, run_edit, wait_until


@contextmanager
def api(settings: Settings, redis_url: str, port: int) -> Iterator[str]:
    """Stops without waiting for open event streams, as a restart does."""
    config = uvicorn.Config(
        create_app(settings, redis_url), port=port, ws="none", log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def newest_id(page: Page) -> str:
    return str(page.locator("#history button").first.get_attribute("data-id"))


def test_an_edit_goes_on_by_itself_over_a_restart_of_the_api(
    settings: Settings, redis_url: str, redis: Redis, repository: EditRepository, blobs: BlobStore, open_page: OpenPage
) -> None:
    seen_a_moment_ago(redis)
    port, go_on = free_port(), Event()
    engine = FakeEngine(during=go_on.wait)
    with api(settings, redis_url, port) as url:
        page = open_page(url, refusals=True)
        choose_sample(page)
        page.get_by_role("button", name="Edit", exact=True).click()
        work = Thread(target=run_edit, args=(engine, repository, blobs, newest_id(page)))
        work.start()
        expect(page.locator("#progress-text")).to_have_text("Step 0 of 3")
    expect(page.locator("#progress-text")).to_contain_text("The connection is lost")
    with api(settings, redis_url, port):
        go_on.set()
        expect(page.locator("#facts .good")).to_be_visible()
        work.join()
        page.context.close()
    assert engine.edits == 1


def test_a_waiting_edit_tells_its_place_and_is_canceled(
    settings: Settings, redis_url: str, redis: Redis, open_page: OpenPage
) -> None:
    seen_a_moment_ago(redis)
    with api(settings, redis_url, free_port()) as url:
        page = open_page(url)
        choose_sample(page)
        page.get_by_role("button", name="Edit", exact=True).click()
        expect(page.locator("#progress-text")).to_contain_text("Waiting, number 1 in the queue")
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#ask-problem")).to_have_text("Canceled. Nothing was changed.")
        page.context.close()


def test_a_service_without_a_worker_says_so(
    settings: Settings, redis_url: str, redis: Redis, open_page: OpenPage
) -> None:
    assert redis.dbsize() == 0
    with api(settings, redis_url, free_port()) as url:
        page = open_page(url, refusals=True)
        choose_sample(page)
        page.get_by_role("button", name="Edit", exact=True).click()
        expect(page.locator("#ask-problem")).to_contain_text("no worker was heard of")
        page.context.close()


def test_an_edit_that_fails_tells_why(
    settings: Settings, redis_url: str, redis: Redis, repository: EditRepository, blobs: BlobStore, open_page: OpenPage
) -> None:
    def fail() -> None:
        raise ArithmeticError("the device gave no number")

    seen_a_moment_ago(redis)
    with api(settings, redis_url, free_port()) as url:
        page = open_page(url)
        choose_sample(page)
        page.get_by_role("button", name="Edit", exact=True).click()
        run_edit(FakeEngine(during=fail), repository, blobs, newest_id(page))
        expect(page.locator("#ask-problem")).to_contain_text("Something went wrong")
        page.context.close()
