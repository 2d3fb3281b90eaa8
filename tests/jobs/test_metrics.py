"""What is counted, by many threads and processes, with Redis away for a while; and that an edit's end counts once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from redis import Redis

from jobs import metrics
from jobs.connection import RedisError, connect
from jobs.metrics import Tally
from jobs.records import Metrics, Outcome, now
from jobs.redis_server import EmbeddedRedis
from jobs.repository import EditRepository
from tests.support import submission


def counts(redis: Redis) -> dict[str, float]:
    found: dict[str, str] = redis.hgetall(metrics.COUNTS)  # type: ignore[assignment]
    return {name: float(value) for name, value in found.items()}


def succeeded(queue_ms: int = 300, run_ms: int = 4000) -> Outcome:
    measured = Metrics(queue_ms=queue_ms, run_ms=run_ms, mask_area=None, change_outside_mask=None)
    return Outcome(status="succeeded", completed_at=now(), metrics=measured)


def test_processes_add_to_the_same_counts(redis: Redis) -> None:
    one, other = Tally(), Tally()
    one.add({"steps": 2, "step_seconds": 0.5})
    other.add({"steps": 3})
    one.flush(redis)
    other.flush(redis)
    one.flush(redis)
    assert counts(redis) == {"steps": 5, "step_seconds": 0.5}


def test_no_count_of_many_threads_is_lost_while_it_is_flushed(redis: Redis) -> None:
    tally = Tally()
    with ThreadPoolExecutor(8) as pool:
        for i in range(2000):
            pool.submit(tally.add, {"steps": 1})
            if i % 200 == 0:
                pool.submit(tally.flush, redis)
    tally.flush(redis)
    assert counts(redis) == {"steps": 2000}


def test_what_is_counted_while_redis_is_away_is_written_when_it_is_back(tmp_path: Path) -> None:
    server, tally = EmbeddedRedis(tmp_path), Tally()
    server.start()
    client = connect(server.url, decode=True)
    server.stop()
    tally.add({"steps": 1})
    with pytest.raises(RedisError):
        tally.flush(client)
    tally.add({"steps": 1})
    server.start()
    tally.flush(client)
    assert counts(client) == {"steps": 2}
    client.close()
    server.stop()


def test_totals_that_are_kept_elsewhere_are_added_up_as_they_grow(redis: Redis) -> None:
    tally = Tally()
    for total in (3, 3, 10):
        tally.follow({"steps": total})
        tally.flush(redis)
    assert counts(redis) == {"steps": 10}


def test_an_observation_falls_into_one_bucket_the_upper_edge_included() -> None:
    for seconds, bucket in ((0.0, "0.1"), (0.1, "0.1"), (0.11, "0.25"), (1800.0, "1800"), (1801.0, "inf")):
        amounts = metrics.observed("run_seconds", seconds, metrics.EDIT_BUCKETS_S)
        assert amounts == {f"run_seconds {bucket}": 1, "run_seconds sum": seconds}


def test_an_edit_that_succeeded_counts_once_with_its_times(repository: EditRepository, redis: Redis) -> None:
    edit = submission()
    repository.create(edit)
    attempt = repository.start(edit.id)
    assert repository.commit(edit.id, attempt, succeeded())
    assert not repository.commit(edit.id, attempt, succeeded())
    assert not repository.commit(edit.id, None, Outcome.failed("worker-lost", "", ""))
    assert counts(redis) == {
        "edits succeeded ": 1,
        "queue_seconds 0.5": 1,
        "queue_seconds sum": 0.3,
        "run_seconds 5": 1,
        "run_seconds sum": 4,
    }


def test_a_failed_edit_counts_by_its_reason(repository: EditRepository, redis: Redis) -> None:
    for slug in ("out-of-memory", "worker-lost", "worker-lost"):
        edit = submission()
        repository.create(edit)
        repository.commit(edit.id, None, Outcome.failed(slug, "", ""))
    assert counts(redis) == {"edits failed out-of-memory": 1, "edits failed worker-lost": 2}


def test_a_canceled_edit_counts_as_canceled_wherever_it_was(repository: EditRepository, redis: Redis) -> None:
    waiting, running = submission(), submission()
    for edit in (waiting, running):
        repository.create(edit)
    attempt = repository.start(running.id)
    for edit in (waiting, running):
        repository.cancel(edit.id)
    assert not repository.commit(running.id, attempt, succeeded()), "the cancel came first"
    assert counts(redis) == {"edits canceled ": 2}


def test_an_edit_ends_also_where_the_counts_are_broken(repository: EditRepository, redis: Redis) -> None:
    redis.set(metrics.COUNTS, "not a hash")
    edit = submission()
    repository.create(edit)
    assert repository.commit(edit.id, None, succeeded())
    record = repository.get(edit.id)
    assert record is not None
    assert record.status == "succeeded"


def test_a_look_for_masks_does_not_count_as_how_long_edits_run(repository: EditRepository, redis: Redis) -> None:
    look = submission(method="masks")
    repository.create(look)
    outcome = succeeded().model_copy(update={"input": look.input})
    assert repository.commit(look.id, repository.start(look.id), outcome)
    assert counts(redis) == {"edits succeeded ": 1, "queue_seconds 0.5": 1, "queue_seconds sum": 0.3}
