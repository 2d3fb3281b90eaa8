"""A real Chromium on the page of a real service with the demo model. Whatever a test does, the page may not complain,
and may not ask anybody but the service."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from demo.showcase import running_service

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 30_000
REFUSED = "Failed to load resource"
"""What Chromium writes to its console when a call is answered with an error, or not at all."""
OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")  # while Playwright runs, its thread has an event loop, and no other test could have one
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        absent = pytest.fail if os.environ.get("CI") else pytest.skip
        absent("no Chromium here: make browser")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # which root cannot have
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of Redis, API and a worker with the demo model, as `make serve` starts them."""
    with running_service(tmp_path_factory.mktemp("playground")) as url:
        yield url


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens a page in a context of its own, or in another page's. `refusals`: the service may refuse something."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []
    strangers: list[str] = []

    def opened(address: str, beside: Page | None = None, *, refusals: bool = False, **options: object) -> Page:
        if beside is None:
            contexts.append(browser.new_context(reduced_motion="reduce", **options))  # type: ignore[arg-type]
        page = (beside.context if beside else contexts[-1]).new_page()
        page.set_default_timeout(PATIENCE_MS)

        def heard(kind: str, text: str) -> None:
            if kind in ("error", "warning") and not (refusals and REFUSED in text):
                complaints.append(text)

        def asked(url: str) -> None:
            if urlsplit(url).scheme not in ("blob", "data") and not url.startswith(f"{address}/"):
                strangers.append(url)

        page.on("console", lambda message: heard(message.type, message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked(request.url))
        page.goto(f"{address}/")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert strangers == []


@pytest.fixture
def page(service: str, open_page: OpenPage) -> Page:
    """The playground, as a stranger sees it at first."""
    return open_page(service)
