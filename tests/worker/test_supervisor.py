"""What the supervisor does when a process ends; the whole of it runs in test_end_to_end.py."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from foi_core.batching import BatchingEngine
from jobs import presence
from jobs.redis_server import GivenRedis
from jobs.settings import Settings
from tests.support import python, wait_until
from worker import supervisor as supervisor_module
from worker.loading import UnusableModelError
from worker.main import EXIT_MODEL, work
from worker.supervisor import Child, FatalError, Supervisor


def child(code: str) -> Child:
    return Child("worker", lambda _: [sys.executable, "-c", code], dict(os.environ))


def first_death(process: Child) -> int:
    process.start_when_due()
    found: list[int] = []

    def died() -> bool:
        status = process.death()
        if status is not None:
            found.append(status)
        return bool(found)

    wait_until(died)
    return found[0]


def test_a_dead_process_is_started_again_by_another_name_after_a_while() -> None:
    process = child("raise SystemExit(7)")
    assert first_death(process) == 7
    name = process.name
    process.start_when_due()
    assert process.process is None, "not at once"
    wait_until(lambda: process.start_when_due() or process.process)
    assert process.name != name
    process.end(deadline=0)


def test_a_process_that_does_not_stop_is_killed_at_the_deadline() -> None:
    process = child("import time; time.sleep(1000)")
    process.start_when_due()
    process.end(deadline=0)
    assert process.process is not None
    assert process.process.returncode == -9


def test_a_worker_that_cannot_use_the_model_ends_the_service(
    settings: Settings, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "_is_ready", lambda _: False)
    supervisor = Supervisor(settings, GivenRedis(redis_url))
    supervisor._service = child("import time; time.sleep(1000)")
    supervisor._workers = [child(f"raise SystemExit({EXIT_MODEL})")]

    def fatal() -> bool:
        try:
            supervisor._look_after_children()
        except FatalError:
            return True
        return False

    wait_until(fatal)
    supervisor._stop()
    assert supervisor._service.process is not None
    assert supervisor._service.process.returncode is not None


def test_a_worker_says_in_one_line_why_the_model_cannot_be_used(
    settings: Settings, redis_url: str, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    def load(_: Callable[[], None]) -> BatchingEngine:
        wait_until(lambda: presence.present(redis))
        seen.extend(worker.state for worker in presence.present(redis))
        raise UnusableModelError("the model 'demo' cannot be used: it has no unet")

    assert work(settings, redis_url, "worker-x", load) == EXIT_MODEL
    assert seen == ["starting"]
    assert presence.present(redis) == []
    assert capsys.readouterr().err == "foi: the model 'demo' cannot be used: it has no unet\n"


def test_an_address_that_cannot_be_listened_on_is_said_before_anything_starts(tmp_path: Path) -> None:
    given = {"FOI_HOST": "192.0.2.1", "FOI_AUTH": "off", "FOI_DATA_DIR": str(tmp_path)}
    environment = {**given, "FOI_REDIS_URL": "", "REDIS_URL": ""}
    supervisor = python("-m", "worker.supervisor", environment=environment, stderr=subprocess.PIPE)
    _, said = supervisor.communicate(timeout=60)
    assert supervisor.returncode == 1
    assert said.startswith("foi: ")
    assert "FOI_PORT" in said
    assert list(tmp_path.iterdir()) == []
