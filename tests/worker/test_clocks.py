"""Workers on hosts whose clocks are two minutes apart: nobody's edit is taken from it, and times are in order."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from rq.executions import Execution

from jobs import clock, presence
from jobs.connection import connect
from jobs.records import EditRecord
from jobs.settings import Settings
from tests.support import ROOT, normal_queue, python, wait_until

SKEWS = (-60, 60)


@pytest.fixture
def workers(settings: Settings, redis: Redis, redis_url: str) -> Iterator[list[subprocess.Popen[str]]]:
    """One whose clock is 60 s behind that of Redis, one whose clock is 60 s ahead."""
    started = []
    for skew in SKEWS:
        environment = {
            "PYTHONPATH": f"{ROOT}/benchmarks/skewed_clock:{ROOT}",
            "CLOCK_SKEWS": str(skew),
            "FOI_REDIS_URL": redis_url,
            "FOI_DATA_DIR": str(settings.data_dir),
            "FOI_MAX_IN_FLIGHT": "1",
        }
        started.append(python("-m", "tests.worker.fake_worker", f"skewed-{skew}", "1.5", environment=environment))
    wait_until(lambda: [one.state for one in presence.present(redis)] == ["ready"] * len(SKEWS), 60)
    yield started
    for process in started:
        process.kill()
        process.wait()


def holders(redis_url: str) -> set[str]:
    """The workers that have leases."""
    redis, found = connect(redis_url), set()
    for job_id, execution_id in normal_queue(redis).started_job_registry.get_job_and_execution_ids(cleanup=False):
        try:
            found.add(Execution.fetch(execution_id, job_id, redis).worker_name.rpartition("-")[0])
        except (ValueError, KeyError):
            continue  # it has just ended
    redis.close()
    return found


def test_no_worker_takes_the_edits_of_another_whose_clock_differs(
    workers: list[subprocess.Popen[str]],
    submit: Callable[..., str],
    look: Callable[[str], EditRecord],
    redis: Redis,
    redis_url: str,
) -> None:
    assert len(workers) == len(SKEWS)
    began = clock.now(redis)
    edits = [submit() for _ in range(8)]
    names = {f"skewed-{skew}" for skew in SKEWS}
    wait_until(lambda: holders(redis_url) == names)
    for edit_id in edits:
        wait_until(lambda edit_id=edit_id: look(edit_id).terminal, 60)  # type: ignore[misc]
        record = look(edit_id)
        assert (record.status, record.attempt, record.deaths) == ("succeeded", 1, 1)
        assert record.started_at is not None
        assert record.outcome is not None
        assert record.outcome.metrics is not None
        assert began <= record.started_at <= record.outcome.completed_at <= clock.now(redis)
        assert record.outcome.metrics.queue_ms >= 0


@pytest.mark.parametrize("dead", range(len(SKEWS)))
def test_the_edit_of_a_worker_that_was_killed_comes_back_after_its_lease_whatever_its_clock_said(
    dead: int,
    workers: list[subprocess.Popen[str]],
    submit: Callable[..., str],
    look: Callable[[str], EditRecord],
    redis_url: str,
) -> None:
    edits = [submit() for _ in range(4)]  # more than one worker takes
    wait_until(lambda: all(look(edit_id).status == "running" for edit_id in edits))
    assert f"skewed-{SKEWS[dead]}" in holders(redis_url)
    workers[dead].kill()
    for edit_id in edits:
        wait_until(lambda edit_id=edit_id: look(edit_id).terminal, 40)  # type: ignore[misc]
        assert look(edit_id).status == "succeeded"
    assert sum(look(edit_id).attempt for edit_id in edits) > len(edits)
