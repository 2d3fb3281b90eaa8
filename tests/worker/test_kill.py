"""Real worker processes are killed and stopped in the middle of an edit; the edit does not notice."""

from __future__ import annotations

import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from jobs import presence
from jobs.records import EditRecord
from jobs.settings import Settings
from tests.support import python, wait_until

Submit = Callable[..., str]
Look = Callable[[str], EditRecord]
Start = Callable[[float], subprocess.Popen[str]]


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    """Starts a worker process whose engine's three steps take so many seconds each."""
    processes = []
    environment = {"FOI_REDIS_URL": settings.redis_url or "", "FOI_DATA_DIR": str(settings.data_dir)}

    def worker(seconds: float) -> subprocess.Popen[str]:
        name = f"worker-{uuid.uuid4().hex}"
        processes.append(python("-m", "tests.worker.fake_worker", name, str(seconds), environment=environment))
        return processes[-1]

    yield worker
    for process in processes:
        process.kill()
        process.wait()


def test_an_edit_survives_kill_9_of_its_worker_with_one_result(
    submit: Submit, look: Look, start: Start, redis: Redis
) -> None:
    edit_id = submit()
    first = start(1000)
    wait_until(lambda: look(edit_id).status == "running")
    first.send_signal(signal.SIGKILL)
    first.wait()
    start(0)
    wait_until(lambda: look(edit_id).terminal)
    record = look(edit_id)
    assert (record.status, record.attempt) == ("succeeded", 2)
    assert record.files["result.png"].key == f"{edit_id}/out-2/result.png"
    wait_until(lambda: not redis.keys(f"rq:*{edit_id}*"))


def test_sigterm_finishes_the_running_edit_then_exits(submit: Submit, look: Look, start: Start, redis: Redis) -> None:
    running, waiting = submit(), submit()
    worker = start(0.4)
    wait_until(lambda: look(running).status == "running")
    worker.terminate()
    wait_until(lambda: [w.state for w in presence.present(redis)] == ["draining"])
    assert worker.wait(20) == 0
    assert look(running).status == "succeeded"
    assert look(waiting).status == "queued"
    assert presence.present(redis) == []
