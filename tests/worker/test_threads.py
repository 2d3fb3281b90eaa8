"""An unforeseen error in one of a worker's threads is logged; the thread goes on, or the worker says that it does not
work."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image
from redis import Redis

from jobs import presence
from jobs.blobs import BlobStore
from jobs.records import EditRecord
from jobs.redis_server import GivenRedis
from jobs.repository import EditRepository
from jobs.settings import Settings
from tests.support import FakeEngine, FakeState, run_edit, wait_until
from worker.crew import Crew
from worker.housekeeping import Housekeeping
from worker.reporter import Reporter
from worker.supervisor import Supervisor

Submit = Callable[..., str]
Look = Callable[[str], EditRecord]


class Unforeseen(Exception):
    pass


class BadPreviews(FakeEngine):
    def preview(self, state: FakeState) -> Image.Image:  # noqa: ARG002
        raise Unforeseen


def test_a_preview_that_fails_costs_neither_progress_nor_cancel(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    edit_id = submit(previews=True)
    canceled: list[object] = []

    def during() -> None:
        time.sleep(0.05)
        if (progress := look(edit_id).progress) is not None and progress.step > 5 and not canceled:
            canceled.append(repository.cancel(edit_id))

    run_edit(BadPreviews(during, steps=400), repository, blobs, edit_id)
    assert look(edit_id).status == "canceled"


def test_a_report_that_fails_is_not_the_last(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_id, failures = submit(), []
    original = EditRepository.report

    def report(*arguments: Any) -> Any:
        if len(failures) < 3:
            failures.append(1)
            raise Unforeseen
        return original(*arguments)

    monkeypatch.setattr(EditRepository, "report", report)
    run_edit(FakeEngine(lambda: time.sleep(0.05), steps=20), repository, blobs, edit_id)
    progress = look(edit_id).progress
    assert progress is not None
    assert progress.step > 0


def test_a_worker_without_its_reporter_does_not_work(
    repository: EditRepository, blobs: BlobStore, settings: Settings, redis_url: str
) -> None:
    engine, reporter = FakeEngine().batching(), Reporter(repository)
    crew = Crew(engine, reporter, "worker", settings.model_copy(update={"max_in_flight": 1}), redis_url, blobs)
    crew.start()
    assert crew.works
    reporter.close()
    assert not crew.works
    assert crew.drain(5)
    engine.close()


def test_housekeeping_goes_on_after_an_unforeseen_error(
    blobs: BlobStore, settings: Settings, redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    housekeeping = Housekeeping("worker", settings, redis_url, blobs)
    ticks: list[int] = []

    def tick() -> None:
        ticks.append(1)
        raise Unforeseen

    monkeypatch.setattr(housekeeping._reaper, "tick", tick)
    housekeeping.start()
    try:
        wait_until(lambda: len(ticks) > 1)
        assert [worker.name for worker in presence.present(redis)] == ["worker"]
    finally:
        housekeeping.stop()


def test_the_supervisor_goes_on_after_an_unforeseen_error_of_its_reaper(
    settings: Settings, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = Supervisor(settings, GivenRedis(redis_url))

    def tick() -> None:
        raise Unforeseen

    monkeypatch.setattr(supervisor._reaper, "tick", tick)
    supervisor._reap("worker-1")
