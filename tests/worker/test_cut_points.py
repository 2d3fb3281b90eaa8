"""Whatever goes away between any two round trips of a submit: what was accepted ends, and the rest can be sent again.

The cut points are counted, not drawn: the k-th request of a submit to a real Redis, for every k, before Redis gets it
and after it has answered. Either the connection to Redis is cut there, or the service is killed.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import get_args

import httpx
import pytest
import uvicorn
from redis import Redis

from benchmarks.redis_proxy import RedisProxy, When
from jobs import deployment, idempotency
from jobs.blobs import BlobStore
from jobs.records import EditRecord
from jobs.repository import EditRepository
from jobs.settings import Settings
from service.app import create_app
from tests.service.conftest import seen_a_moment_ago, serving
from tests.support import FakeEngine, encoded, picture, wait_until
from worker.rq_worker import EditWorker
from worker.sweeper import Sweeper

Work = Callable[..., EditWorker]
Look = Callable[[str], EditRecord]
Serve = Callable[[Settings, str], "Service"]

IN_FLIGHT_S = 1
PROCESSES = multiprocessing.get_context("forkserver")  # the imports are done once
PROCESSES.set_forkserver_preload([__name__])


class Service:
    """A service whose process can be killed, and is started again when it was."""

    def __init__(self, settings: Settings, url: str) -> None:
        self._settings, self._url = settings, url
        self._process: multiprocessing.process.BaseProcess | None = None
        self._killed = False
        self.address = ""

    def start(self) -> None:
        if self._process is not None:
            if not self._killed:
                return
            self._process.join()
            self._killed = False
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            self._process = PROCESSES.Process(target=_serve, args=(listener, self._settings, self._url), daemon=True)
            self._process.start()
        wait_until(self._answers)

    def kill(self) -> None:
        assert self._process is not None
        assert self._process.pid is not None
        self._killed = True
        os.kill(self._process.pid, signal.SIGKILL)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.address}/livez", timeout=5).is_success
        except httpx.TransportError:
            return False


def _serve(listener: socket.socket, settings: Settings, url: str) -> None:
    idempotency.IN_FLIGHT_S = IN_FLIGHT_S
    uvicorn.Server(uvicorn.Config(create_app(settings, url), ws="none", log_config=None)).run([listener])


@pytest.fixture
def proxy(redis_url: str) -> Iterator[RedisProxy]:
    proxy = RedisProxy(Path(redis_url.removeprefix("unix://")))
    yield proxy
    proxy.close()


@contextmanager
def cut(settings: Settings, proxy: RedisProxy) -> Iterator[tuple[Callable[[], str], Callable[[], None]]]:
    """A service that lives on while Redis is away. Its address, and what is done at the cut."""
    with serving(settings, proxy.url) as address:
        yield lambda: address, lambda: None


@contextmanager
def killed(settings: Settings, proxy: RedisProxy) -> Iterator[tuple[Callable[[], str], Callable[[], None]]]:
    """A service that is killed at the cut, and started again when its address is next asked for."""
    service = Service(settings, proxy.url)

    def address() -> str:
        service.start()
        return service.address

    yield address, service.kill
    service.kill()


def post(address: str, key: str, **fields: str) -> httpx.Response | None:
    """None: there was no answer."""
    try:
        return httpx.post(
            f"{address}/v1/edits",
            files={"image": encoded(picture())},
            data={"instruction": "make the ball red", **fields},
            headers={"Idempotency-Key": key},
            timeout=20,
        )
    except httpx.TransportError:
        return None


@pytest.mark.parametrize("ends", [cut, killed])
@pytest.mark.parametrize("when", get_args(When))
def test_whatever_is_cut_between_two_round_trips_of_a_submit_every_edit_ends_once(
    ends: Callable[..., object],
    when: When,
    settings: Settings,
    proxy: RedisProxy,
    redis: Redis,
    repository: EditRepository,
    blobs: BlobStore,
    look: Look,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(idempotency, "IN_FLIGHT_S", IN_FLIGHT_S)
    deployment.adopt(redis, blobs)
    edits: dict[str, str] = {}
    accepted_first, refused_first = 0, 0
    with ends(settings, proxy) as (address, at_the_cut):  # type: ignore[attr-defined]
        for k in itertools.count(1):
            key = f"{when}-{k}"
            url = address()
            seen_a_moment_ago(redis)
            redis.script_flush()  # after a restart of Redis the scripts are sent again: two more round trips
            proxy.arm(k, when, at_the_cut)
            first = post(url, key)
            was_cut = proxy.down
            proxy.heal()
            assert first is None or first.status_code in (202, 503), first.text
            accepted = first is not None and first.status_code == 202
            accepted_first += accepted
            refused_first += not accepted
            again = wait_until(partial(_accepted, address(), key))
            edits[key] = again.json()["id"]
            if accepted:
                assert first is not None
                assert first.json()["id"] == edits[key]
            if not was_cut:
                break
    assert accepted_first >= 1
    assert refused_first > 5
    work(FakeEngine(steps=1))
    for edit_id in edits.values():
        wait_until(lambda edit_id=edit_id: look(edit_id).terminal)  # type: ignore[misc]
        assert look(edit_id).status == "succeeded"
        assert look(edit_id).attempt == 1
    assert len(set(edits.values())) == len(edits)
    assert {key.removeprefix("foi:edit:") for key in redis.keys("foi:edit:*")} == set(edits.values())
    wait_until(lambda: not redis.keys("rq:job:*"))
    for _ in range(2):
        Sweeper(repository, blobs).sweep()
    assert set(blobs.edit_ids()) == set(edits.values())


def _accepted(url: str, key: str) -> httpx.Response | None:
    """The answer to the same request, once it is taken; in between it may be "still in flight"."""
    answer = post(url, key)
    assert answer is not None
    assert answer.status_code in (202, 409), answer.text
    return answer if answer.status_code == 202 else None
