"""The record of an edit: its states, and that only one process can end it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from redis import Redis

from jobs.connection import connect
from jobs.records import Outcome, Progress, now
from jobs.repository import EditRepository
from tests.support import submission

DONE = Outcome(status="succeeded", completed_at=now())
FAILED = Outcome.failed("internal", "Broken", "because")


def test_a_new_edit_is_queued_and_comes_back_as_it_was_stored(repository: EditRepository) -> None:
    stored = submission(threshold=(0.4, 0.7), metadata=None)
    repository.create(stored)
    record = repository.get(stored.id)
    assert record is not None
    assert (record.submission, record.status, record.attempt, record.terminal) == (stored, "queued", 0, False)
    assert (record.expires_at - stored.created_at).total_seconds() == repository.retention_s


def test_an_unknown_edit_is_none_and_cannot_be_started_or_ended(repository: EditRepository, redis: Redis) -> None:
    assert repository.get("edit_x") is None
    assert repository.start("edit_x") is None
    assert not repository.commit("edit_x", None, DONE)
    assert not repository.progress("edit_x", 1, Progress(step=1, steps=2, stage="denoise"))
    assert redis.keys() == []


def test_each_start_is_a_new_attempt(repository: EditRepository) -> None:
    edit_id = _created(repository)
    assert [repository.start(edit_id), repository.start(edit_id)] == [1, 2]
    record = repository.get(edit_id)
    assert record is not None
    assert record.status == "running"
    assert record.started_at is not None


def test_an_attempt_that_was_given_up_for_dead_can_change_nothing(repository: EditRepository) -> None:
    edit_id = _created(repository)
    paused, current = repository.start(edit_id), repository.start(edit_id)
    assert paused is not None
    assert current is not None
    assert not repository.progress(edit_id, paused, Progress(step=9, steps=9, stage="denoise"))
    assert not repository.commit(edit_id, paused, FAILED)
    assert repository.progress(edit_id, current, Progress(step=1, steps=9, stage="denoise"))
    assert repository.commit(edit_id, current, DONE)
    record = repository.get(edit_id)
    assert record is not None
    assert record.outcome == DONE
    assert record.progress == Progress(step=1, steps=9, stage="denoise")


def test_a_second_commit_is_refused_and_changes_nothing(repository: EditRepository, redis: Redis) -> None:
    edit_id = _created(repository)
    attempt = repository.start(edit_id)
    assert repository.commit(edit_id, attempt, DONE)
    before = redis.hgetall(f"foi:edit:{edit_id}")
    assert not repository.commit(edit_id, attempt, FAILED)
    assert not repository.commit(edit_id, None, FAILED)
    assert repository.start(edit_id) is None
    assert redis.hgetall(f"foi:edit:{edit_id}") == before


def test_of_twenty_racing_commits_one_wins(repository: EditRepository, redis_url: str) -> None:
    edit_id = _created(repository)
    attempt = repository.start(edit_id)
    line = Barrier(20)

    def commit(number: int) -> bool:
        client = connect(redis_url, decode=True)
        outcome = Outcome.failed("internal", "Broken", f"by {number}")
        line.wait()
        won = EditRepository(client, 60).commit(edit_id, attempt, outcome)
        client.close()
        return won

    with ThreadPoolExecutor(20) as pool:
        won = list(pool.map(commit, range(20)))
    record = repository.get(edit_id)
    assert record is not None
    assert record.outcome is not None
    assert record.outcome.error is not None
    assert won.count(True) == 1
    assert record.outcome.error.detail == f"by {won.index(True)}"


def test_the_record_expires_and_leaves_a_tombstone(repository: EditRepository, redis: Redis) -> None:
    edit_id = _created(repository)
    assert 0 < redis.ttl(f"foi:edit:{edit_id}") <= repository.retention_s
    redis.expire(f"foi:edit:{edit_id}", 100)
    repository.commit(edit_id, None, DONE)
    assert redis.ttl(f"foi:edit:{edit_id}") > 100, "finished edits are kept for the whole retention time"
    assert redis.ttl(f"foi:tombstone:{edit_id}") > redis.ttl(f"foi:edit:{edit_id}")
    redis.delete(f"foi:edit:{edit_id}")
    assert repository.get(edit_id) is None
    assert repository.is_expired(edit_id)
    assert not repository.is_expired("edit_never")


def test_a_restart_forgets_the_progress_of_the_attempt_before(repository: EditRepository) -> None:
    edit_id = _created(repository)
    repository.progress(edit_id, repository.start(edit_id) or 0, Progress(step=5, steps=9, stage="denoise"))
    repository.start(edit_id)
    record = repository.get(edit_id)
    assert record is not None
    assert record.progress is None


def test_known_tells_which_edits_have_a_record(repository: EditRepository) -> None:
    edit_id = _created(repository)
    assert repository.known([edit_id, "edit_other"]) == {edit_id}


def _created(repository: EditRepository) -> str:
    stored = submission()
    repository.create(stored)
    return stored.id
