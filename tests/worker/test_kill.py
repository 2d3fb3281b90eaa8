"""Real worker processes are killed and stopped in the middle of an edit; the edit does not notice."""

from __future__ import annotations

import signal
import subprocess
import uuid
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from jobs import presence
from jobs.queue import EditQueue
from jobs.records import EditRecord, Instruction
from jobs.settings import Settings
from tests.support import python, wait_until
from tests.worker.fake_worker import POISON
from worker.main import EXIT_ENGINE

Submit = Callable[..., str]
Look = Callable[[str], EditRecord]
START_S = 120
"""A process that imports torch on a busy machine."""
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    """Starts a worker process whose engine's three steps take so many seconds each."""
    processes = []
    environment = {"FOI_REDIS_URL": settings.redis_url or "", "FOI_DATA_DIR": str(settings.data_dir)}

    def worker(seconds: float, **more: str) -> subprocess.Popen[str]:
        name = f"worker-{uuid.uuid4().hex}"
        given = {**environment, **more}
        processes.append(python("-m", "tests.worker.fake_worker", name, str(seconds), environment=given))
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
    wait_until(lambda: look(edit_id).status == "running", START_S)
    first.send_signal(signal.SIGKILL)
    first.wait()
    start(0)
    wait_until(lambda: look(edit_id).terminal, START_S)
    record = look(edit_id)
    assert (record.status, record.attempt) == ("succeeded", 2)
    assert record.files["result.png"].key == f"{edit_id}/out-2/result.png"
    wait_until(lambda: not redis.keys(f"rq:*{edit_id}*"))


def test_sigterm_finishes_the_running_edits_then_exits(submit: Submit, look: Look, start: Start, redis: Redis) -> None:
    edits = [submit() for _ in range(12)]
    worker = start(0.4)
    wait_until(lambda: any(look(edit).status == "running" for edit in edits), START_S)
    worker.terminate()
    wait_until(lambda: [w.state for w in presence.present(redis)] == ["draining"])
    assert worker.wait(20) == 0
    ends = Counter(look(edit).status for edit in edits)
    assert ends.keys() == {"succeeded", "queued"}, "begun and done, or not begun"
    assert presence.present(redis) == []


def test_what_is_not_done_in_time_is_handed_back_and_nobody_is_blamed(
    submit: Submit, look: Look, start: Start, queue: EditQueue
) -> None:
    edit_id = submit()
    worker = start(0.7, FOI_DRAIN_S="0")
    wait_until(lambda: look(edit_id).status == "running", START_S)
    worker.terminate()
    assert worker.wait(20) == 0
    assert (look(edit_id).status, look(edit_id).deaths, queue.length()) == ("queued", 0, 1)
    start(0)
    wait_until(lambda: look(edit_id).status == "succeeded", START_S)


def test_a_step_that_cannot_be_stopped_in_time_is_nobodys_fault_either(
    submit: Submit, look: Look, start: Start
) -> None:
    edit_id = submit()
    worker = start(1000, FOI_DRAIN_S="0")

    def steps() -> bool:
        progress = look(edit_id).progress
        return progress is not None and progress.stage == "denoise"

    wait_until(steps, START_S)
    worker.terminate()
    assert worker.wait(20) == EXIT_ENGINE
    assert (look(edit_id).status, look(edit_id).deaths) == ("queued", 0)
    start(0)
    wait_until(lambda: look(edit_id).status == "succeeded", START_S)


def test_a_worker_that_hangs_ends_itself_and_its_edit_is_run_by_another(
    submit: Submit, look: Look, start: Start
) -> None:
    edit_id = submit()
    worker = start(1000, FOI_HANG_S="5")
    wait_until(lambda: look(edit_id).status == "running", START_S)
    assert worker.wait(20) == EXIT_ENGINE
    start(0)
    wait_until(lambda: look(edit_id).status == "succeeded", START_S)


def test_an_edit_that_kills_its_workers_is_given_up_and_its_neighbours_are_done(
    submit: Submit, look: Look, start: Start
) -> None:
    before = [submit() for _ in range(2)]
    poison = submit(instructions=(Instruction(text=POISON),))
    after = [submit() for _ in range(2)]
    worker = start(0.05)

    def all_ended() -> bool:
        nonlocal worker
        if worker.poll() is not None:
            worker = start(0.05)
        return all(look(edit).terminal for edit in (*before, poison, *after))

    wait_until(all_ended, START_S)
    assert [look(edit).status for edit in (*before, *after)] == ["succeeded"] * 4
    record = look(poison)
    assert record.outcome is not None
    assert record.outcome.error is not None
    assert (record.status, record.outcome.error.type) == ("failed", "/problems/worker-lost")
    assert "2 workers died" in record.outcome.error.detail
