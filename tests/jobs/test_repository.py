"""The record of an edit: its states, and that only one process can end it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from redis import Redis

from jobs.connection import connect
from jobs.records import Outcome, Output, Progress, StoredFile, now
from jobs.repository import Claim, ClaimLostError, EditRepository, Reply, Report, events_key
from tests.support import submission

DONE = Outcome(status="succeeded", completed_at=now())
FAILED = Outcome.failed("internal", "Broken", "because")


def test_a_new_edit_is_queued_and_comes_back_as_it_was_stored(repository: EditRepository) -> None:
    stored = submission(threshold=(0.4, 0.7), metadata=None)
    repository.create(stored)
    record = repository.get(stored.id)
    assert record is not None
    assert (record.submission, record.status, record.attempt, record.terminal) == (stored, "queued", 0, False)
    assert record.expires_at == repository.expiry(stored)


def test_an_unknown_edit_is_none_and_cannot_be_started_or_ended(repository: EditRepository, redis: Redis) -> None:
    assert repository.get("edit_x") is None
    assert repository.start("edit_x") is None
    assert not repository.commit("edit_x", None, DONE)
    assert told(repository, "edit_x", 1, Progress(step=1, steps=2, stage="denoise")) == Reply.LOST
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
    assert told(repository, edit_id, paused, Progress(step=9, steps=9, stage="denoise")) == Reply.LOST
    assert not repository.commit(edit_id, paused, FAILED)
    assert told(repository, edit_id, current, Progress(step=1, steps=9, stage="denoise")) == Reply.GO_ON
    assert repository.commit(edit_id, current, DONE)
    record = repository.get(edit_id)
    assert record is not None
    assert record.outcome == DONE
    assert record.progress == Progress(step=1, steps=9, stage="denoise")


def test_what_a_client_sends_again_because_it_missed_the_answer_changes_nothing(
    repository: EditRepository, redis: Redis
) -> None:
    new = submission().model_copy(update={"owner": "me"})
    claim = Claim("foi:idempotency:me:k", "value", 60)
    redis.set(claim.key, claim.value)
    assert [repository.create(new, 1, claim) for _ in range(2)] == [True, True]
    keys = [f"foi:edit:{new.id}", events_key(new.id), f"foi:tombstone:{new.id}"]
    assert [int(repository._start(keys=keys, args=["2026-11-26T00:00:00+00:00", "token"])) for _ in range(2)] == [1, 1]
    assert [repository.commit(new.id, 1, DONE) for _ in range(2)] == [True, True]
    record = repository.get(new.id)
    assert record is not None
    assert (record.deaths, record.attempt, record.outcome) == (1, 1, DONE)
    assert [kind for kind, _ in events(redis, new.id)] == ["status", "status", "status", "done"]


def test_an_edit_whose_idempotency_key_went_to_another_request_is_not_made(
    repository: EditRepository, redis: Redis
) -> None:
    claim = Claim("foi:idempotency:me:k", "value", 60)
    redis.set(claim.key, "another's")
    new = submission()
    with pytest.raises(ClaimLostError):
        repository.create(new, 0, claim)
    assert repository.get(new.id) is None


def test_a_record_that_cannot_be_read_counts_as_gone_and_hides_no_other(
    repository: EditRepository, redis: Redis
) -> None:
    readable, odd = _created(repository), _created(repository)
    redis.hset(f"foi:edit:{odd}", "submission", '{"of": "another version"}')
    assert repository.get(odd) is None
    records, _ = repository.page("", 10)
    assert [record.submission.id for record in records] == [readable]


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
    assert redis.ttl(f"foi:edit:{edit_id}") > repository.retention_s, "it may wait longer than it is kept after"
    redis.expire(f"foi:edit:{edit_id}", 100)
    repository.commit(edit_id, None, DONE)
    assert redis.ttl(f"foi:edit:{edit_id}") > 100, "finished edits are kept for the whole retention time"
    assert redis.ttl(f"foi:tombstone:{edit_id}") > redis.ttl(f"foi:edit:{edit_id}")
    redis.delete(f"foi:edit:{edit_id}")
    assert repository.get(edit_id) is None
    assert repository.past_owner(edit_id) == ""
    assert repository.past_owner("edit_never") is None


def test_a_restart_forgets_the_progress_of_the_attempt_before(repository: EditRepository) -> None:
    edit_id = _created(repository)
    told(repository, edit_id, repository.start(edit_id) or 0, Progress(step=5, steps=9, stage="denoise"))
    repository.start(edit_id)
    record = repository.get(edit_id)
    assert record is not None
    assert record.progress is None


def test_known_tells_which_edits_have_a_record(repository: EditRepository) -> None:
    edit_id = _created(repository)
    assert repository.known([edit_id, "edit_other"]) == {edit_id}


HALF = Progress(step=5, steps=9, stage="denoise")


def test_a_queued_edit_is_canceled_at_once_and_never_starts(repository: EditRepository) -> None:
    edit_id = _created(repository)
    assert repository.cancel(edit_id) == "canceled"
    assert repository.start(edit_id) is None
    assert [repository.cancel(edit_id), repository.cancel("edit_x")] == ["ended", "unknown"]
    record = repository.get(edit_id)
    assert record is not None
    assert (record.status, record.terminal) == ("canceled", True)


def test_a_running_edit_is_told_of_its_cancel_and_cannot_succeed_after_it(
    repository: EditRepository, redis: Redis
) -> None:
    edit_id = _created(repository)
    attempt = repository.start(edit_id) or 0
    assert [repository.cancel(edit_id), repository.cancel(edit_id)] == ["canceling", "canceling"]
    assert told(repository, edit_id, attempt, HALF) == Reply.CANCELED
    assert not repository.commit(edit_id, attempt, DONE)
    record = repository.get(edit_id)
    assert record is not None
    assert (record.status, record.files) == ("canceled", {})
    assert events(redis, edit_id)[-2:] == [("status", {"status": "canceled"}), ("done", {"status": "canceled"})]


def test_a_cancel_survives_the_death_of_the_worker(repository: EditRepository) -> None:
    edit_id = _created(repository)
    repository.start(edit_id)
    repository.cancel(edit_id)
    repository.release(edit_id, None, blameless=False)
    attempt = repository.start(edit_id)
    record = repository.get(edit_id)
    assert record is not None
    assert record.status == "canceling"
    assert repository.commit(edit_id, attempt, Outcome.canceled())


def test_an_edit_that_was_handed_back_waits_again_and_its_old_attempt_is_lost(repository: EditRepository) -> None:
    edit_id = _created(repository)
    attempt = repository.start(edit_id) or 0
    assert repository.release(edit_id, attempt, blameless=True)
    record = repository.get(edit_id)
    assert record is not None
    assert (record.status, record.deaths, record.started_at) == ("queued", 0, None)
    assert told(repository, edit_id, attempt, HALF) == Reply.LOST
    assert not repository.release(edit_id, attempt, blameless=True), "it is not running"
    assert repository.start(edit_id) == attempt + 1


def test_deaths_are_counted_until_an_attempt_ends_otherwise(repository: EditRepository) -> None:
    edit_id = _created(repository)
    for deaths in (1, 2):
        repository.start(edit_id)
        repository.release(edit_id, None, blameless=False)
        record = repository.get(edit_id)
        assert record is not None
        assert record.deaths == deaths


def test_the_events_tell_what_happened_and_end_once(repository: EditRepository, redis: Redis) -> None:
    edit_id = _created(repository)
    attempt = repository.start(edit_id) or 0
    for _ in range(2):
        told(repository, edit_id, attempt, HALF)
    repository.report([Report(edit_id, attempt, HALF, "data:image/jpeg;base64,x")])
    outcome = Outcome(
        status="succeeded",
        completed_at=now(),
        files={"result.png": StoredFile(key="k", media_type="image/png", sha256="s", size=1)},
        outputs=(Output(seed=1, file="result.png", width=4, height=4),),
    )
    repository.commit(edit_id, attempt, outcome)
    repository.commit(edit_id, attempt, FAILED)
    assert [kind for kind, _ in events(redis, edit_id)] == [
        "status",
        "status",
        "progress",
        "preview",
        "status",
        "output",
        "done",
    ]
    assert 0 < redis.ttl(events_key(edit_id)) <= repository.retention_s


def test_the_events_of_a_long_edit_are_trimmed(repository: EditRepository, redis: Redis) -> None:
    edit_id = _created(repository)
    attempt = repository.start(edit_id) or 0
    repository.report([Report(edit_id, attempt, Progress(step=i, steps=2000, stage="denoise")) for i in range(2000)])
    assert redis.xlen(events_key(edit_id)) < 1000


def told(repository: EditRepository, edit_id: str, attempt: int, progress: Progress) -> Reply:
    return repository.report([Report(edit_id, attempt, progress)])[0]


def events(redis: Redis, edit_id: str) -> list[tuple[str, Any]]:
    return [(fields["type"], json.loads(fields["data"])) for _, fields in redis.xrange(events_key(edit_id))]


def _created(repository: EditRepository) -> str:
    stored = submission()
    repository.create(stored)
    return stored.id
