"""Webhooks as they are stored: claimed for a while, tried by a table, signed by at most two secrets."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from redis import Redis

from jobs.metrics import WEBHOOK_OUTCOMES
from jobs.records import Outcome, Webhook, now
from jobs.repository import DUE, EditRepository, events_key
from jobs.webhooks import (
    KEPT_S,
    LEASE_S,
    MAX_ATTEMPTS,
    RETRY_S,
    Attempt,
    Claim,
    Delivery,
    DeliveryStore,
    WebhookSecrets,
    retry_delay,
)
from tests.support import submission

URL = "https://receiver.example/hook"
DONE = Outcome(status="succeeded", completed_at=now())


@pytest.fixture
def store(repository: EditRepository) -> DeliveryStore:
    return DeliveryStore(repository)


def ended(repository: EditRepository, outcome: Outcome = DONE, *events: str) -> str:
    """An edit that has just ended and has a webhook."""
    webhook = Webhook(url=URL, events=events or ("edit.succeeded", "edit.failed", "edit.canceled"))  # type: ignore[arg-type]
    new = submission().model_copy(update={"webhook": webhook, "owner": "key_1"})
    repository.create(new)
    assert repository.commit(new.id, None, outcome)
    return new.id


def attempt(status: int | None) -> Attempt:
    return Attempt(at=now(), status=status, error=None if status else "did not answer within 15 s", ms=3)


def claimed(store: DeliveryStore) -> tuple[Claim, Delivery]:
    (claim,) = store.claim(10)
    delivery = store.load(claim)
    assert delivery is not None
    return claim, delivery


def due_in(redis: Redis, edit_id: str) -> float:
    score = redis.zscore(DUE, edit_id)
    assert isinstance(score, float)
    return score - time.time()


def test_the_table_of_retries_is_that_of_the_documentation() -> None:
    assert [retry_delay(tries, 0) for tries in range(11)] == [
        0, 5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600, None,
    ]  # fmt: skip
    assert [retry_delay(2, wobble) for wobble in (-1, 1)] == [270, 330]


def test_the_later_of_the_table_and_retry_after_counts_up_to_a_day() -> None:
    assert retry_delay(1, 0, retry_after=60) == 60
    assert retry_delay(2, 0, retry_after=60) == 300
    assert retry_delay(1, 0, retry_after=10**12) == 86_400
    assert retry_delay(len(RETRY_S), 0, retry_after=60) is None


def test_the_message_is_the_edit_as_it_is_over_http(store: DeliveryStore, repository: EditRepository) -> None:
    edit_id = ended(repository)
    _, delivery = claimed(store)
    body = json.loads(delivery.body)
    assert body.keys() == {"type", "timestamp", "data"}
    assert (body["type"], body["data"]["id"], body["data"]["status"]) == ("edit.succeeded", edit_id, "succeeded")
    assert body["timestamp"] == body["data"]["completed_at"]
    assert (delivery.id, delivery.url, delivery.owner) == (f"msg_{edit_id[5:]}", URL, "key_1")
    assert (delivery.state, delivery.tries, delivery.attempts) == ("pending", 0, ())


def test_what_is_claimed_is_nobody_elses_until_the_lease_ends(
    store: DeliveryStore, repository: EditRepository, redis: Redis
) -> None:
    edit_ids = {ended(repository) for _ in range(20)}
    with ThreadPoolExecutor(4) as pool:
        rounds = list(pool.map(lambda _: store.claim(3), range(12)))
    found = [claim.edit_id for claims in rounds for claim in claims]
    assert len(found) == 20
    assert set(found) == edit_ids
    assert all(LEASE_S - 5 < due_in(redis, edit_id) <= LEASE_S for edit_id in edit_ids)
    redis.zadd(DUE, {found[0]: 0})  # as if the time had passed
    assert [claim.edit_id for claim in store.claim(10)] == [found[0]]


def test_every_attempt_sends_the_same_bytes_also_when_the_edit_is_gone(
    store: DeliveryStore, repository: EditRepository, redis: Redis
) -> None:
    edit_id = ended(repository)
    claim, first = claimed(store)
    assert store.record(claim, first, attempt(500), wobble=0) == "pending"
    repository.delete(edit_id)
    redis.delete(f"foi:deleted:{edit_id}")
    redis.zadd(DUE, {edit_id: 0})
    _, second = claimed(store)
    assert (second.body, second.id) == (first.body, first.id)


def test_an_edit_that_is_deleted_right_after_its_end_is_told_of(
    store: DeliveryStore, repository: EditRepository
) -> None:
    edit_id = ended(repository)
    record = repository.get(edit_id)
    assert record is not None
    store.prepare(record)
    repository.delete(edit_id)
    _, delivery = claimed(store)
    assert json.loads(delivery.body)["type"] == "edit.succeeded"


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [(Outcome.canceled(), "edit.canceled"), (Outcome.failed("internal", "Broken", "because"), "edit.failed")],
)
def test_the_event_is_the_end(store: DeliveryStore, repository: EditRepository, outcome: Outcome, kind: str) -> None:
    ended(repository, outcome)
    _, delivery = claimed(store)
    assert json.loads(delivery.body)["type"] == kind


def test_events_that_were_not_asked_for_are_dropped(
    store: DeliveryStore, repository: EditRepository, redis: Redis
) -> None:
    edit_id = ended(repository, Outcome.canceled(), "edit.succeeded", "edit.failed")
    (claim,) = store.claim(10)
    assert store.load(claim) is None
    assert (redis.zcard(DUE), store.get(edit_id)) == (0, None)


def test_an_edit_whose_record_has_expired_is_dropped(store: DeliveryStore, redis: Redis) -> None:
    redis.zadd(DUE, {"edit_x": 0})
    (claim,) = store.claim(10)
    assert store.load(claim) is None
    assert redis.zcard(DUE) == 0


@pytest.mark.parametrize(("status", "state"), [(200, "succeeded"), (204, "succeeded"), (410, "stopped")])
def test_some_answers_are_the_end(
    store: DeliveryStore, repository: EditRepository, redis: Redis, status: int, state: str
) -> None:
    edit_id = ended(repository)
    claim, delivery = claimed(store)
    assert store.record(claim, delivery, attempt(status), wobble=0) == state
    found = store.get(edit_id)
    assert found is not None
    assert (found.state, found.next_at, [a.status for a in found.attempts]) == (state, None, [status])
    assert redis.zcard(DUE) == 0
    assert redis.hgetall(WEBHOOK_OUTCOMES) == {state: "1"}
    assert KEPT_S - 5 < redis.ttl(f"foi:delivery:{edit_id}") <= KEPT_S


@pytest.mark.parametrize("status", [None, 301, 302, 304, 400, 404, 429, 500, 503, 100])
def test_all_others_are_tried_again(
    store: DeliveryStore, repository: EditRepository, redis: Redis, status: int | None
) -> None:
    edit_id = ended(repository)
    claim, delivery = claimed(store)
    assert store.record(claim, delivery, attempt(status), wobble=0) == "pending"
    found = store.get(edit_id)
    assert found is not None
    assert found.next_at is not None
    assert 4 < due_in(redis, edit_id) <= 5
    assert timedelta(seconds=4) < found.next_at - now() <= timedelta(seconds=5)


def test_after_the_last_attempt_it_has_failed(store: DeliveryStore, repository: EditRepository, redis: Redis) -> None:
    edit_id = ended(repository)
    for seconds in RETRY_S[1:]:
        claim, delivery = claimed(store)
        assert store.record(claim, delivery, attempt(None), wobble=0) == "pending"
        assert seconds - 5 < due_in(redis, edit_id) <= seconds
        redis.zadd(DUE, {edit_id: 0})
    claim, delivery = claimed(store)
    assert store.record(claim, delivery, attempt(500), wobble=0) == "failed"
    found = store.get(edit_id)
    assert found is not None
    assert (found.state, found.tries, len(found.attempts), redis.zcard(DUE)) == ("failed", 10, 10, 0)
    assert redis.hgetall(WEBHOOK_OUTCOMES) == {"failed": "10"}


def test_a_claim_that_has_run_out_only_adds_to_the_log(
    store: DeliveryStore, repository: EditRepository, redis: Redis
) -> None:
    edit_id = ended(repository)
    slow, delivery = claimed(store)
    redis.zadd(DUE, {edit_id: 0})
    claimed(store)
    store.record(slow, delivery, attempt(410), wobble=0)
    store.postpone(slow, 0)
    found = store.get(edit_id)
    assert found is not None
    assert (found.state, found.tries, len(found.attempts)) == ("pending", 0, 1)
    assert due_in(redis, edit_id) > LEASE_S - 5


def test_a_claim_can_be_given_back(store: DeliveryStore, repository: EditRepository, redis: Redis) -> None:
    edit_id = ended(repository)
    (claim,) = store.claim(10)
    store.postpone(claim, 3)
    assert 2 < due_in(redis, edit_id) <= 3
    redis.zadd(DUE, {edit_id: 0})
    (claim,) = store.claim(10)
    store.postpone(claim, 0)
    assert len(store.claim(10)) == 1


def test_sending_again_begins_the_table_anew_with_the_same_message(
    store: DeliveryStore, repository: EditRepository
) -> None:
    edit_id = ended(repository)
    claim, first = claimed(store)
    store.record(claim, first, attempt(410), wobble=0)
    record = repository.get(edit_id)
    assert record is not None
    again = store.redeliver(record)
    assert again is not None
    assert (again.id, again.body, again.state, again.tries) == (first.id, first.body, "pending", 0)
    claim, second = claimed(store)
    assert store.record(claim, second, attempt(200), wobble=0) == "succeeded"
    found = store.get(edit_id)
    assert found is not None
    assert [a.status for a in found.attempts] == [410, 200]


def test_a_wish_to_send_again_overtakes_the_attempt_that_runs(store: DeliveryStore, repository: EditRepository) -> None:
    edit_id = ended(repository)
    claim, delivery = claimed(store)
    record = repository.get(edit_id)
    assert record is not None
    store.redeliver(record)
    store.record(claim, delivery, attempt(200), wobble=0)
    assert [claim.edit_id for claim in store.claim(10)] == [edit_id]


def test_the_log_is_bounded(store: DeliveryStore, repository: EditRepository) -> None:
    edit_id = ended(repository)
    claim, delivery = claimed(store)
    for status in range(500, 500 + MAX_ATTEMPTS + 5):
        store.record(claim, delivery, attempt(status), wobble=0)
    found = store.get(edit_id)
    assert found is not None
    assert [a.status for a in found.attempts] == list(range(505, 505 + MAX_ATTEMPTS))


def test_an_owner_has_a_secret_from_the_start_and_two_after_a_rotation(redis: Redis) -> None:
    secrets = WebhookSecrets(redis)
    with ThreadPoolExecutor(8) as pool:
        first = list(pool.map(lambda _: WebhookSecrets(redis).current("key_1"), range(16)))
    assert all(found == first[0] for found in first)
    assert first[0][0].startswith("whsec_")
    new = secrets.rotate("key_1")
    assert secrets.current("key_1") == [new, *first[0]]
    newer = secrets.rotate("key_1")
    assert secrets.current("key_1") == [newer, new]
    assert not set(secrets.current("")) & {new, newer, *first[0]}


def test_a_rotation_before_the_first_use_makes_the_first(redis: Redis) -> None:
    secrets = WebhookSecrets(redis)
    assert [secrets.rotate("key_1")] == secrets.current("key_1")


def test_an_edit_outlives_the_deliveries_of_its_end(
    store: DeliveryStore, repository: EditRepository, redis: Redis
) -> None:
    edit_id = ended(repository)
    keys = (f"foi:edit:{edit_id}", events_key(edit_id), f"foi:tombstone:{edit_id}")
    for tries in range(1, len(RETRY_S)):
        redis.zadd(DUE, {edit_id: 0})  # as if the time had passed
        for key in keys[:2]:
            redis.expire(key, 60)
        claim, delivery = claimed(store)
        assert store.record(claim, delivery, attempt(500), wobble=1) == "pending"
        next_s = due_in(redis, edit_id)
        assert next_s > RETRY_S[tries]
        assert all(redis.ttl(key) >= next_s + repository.retention_s - 1 for key in keys)
        record = repository.get(edit_id)
        assert record is not None
        assert abs((record.expires_at - now()).total_seconds() - next_s - repository.retention_s) < 5


def test_an_edit_that_is_told_at_once_or_never_is_kept_no_longer(
    store: DeliveryStore, repository: EditRepository, redis: Redis
) -> None:
    for status in (200, 410):
        edit_id = ended(repository)
        before = repository.get(edit_id)
        claim, delivery = claimed(store)
        store.record(claim, delivery, attempt(status), wobble=0)
        assert repository.get(edit_id) == before
        assert redis.ttl(f"foi:edit:{edit_id}") <= repository.retention_s


def test_an_edit_that_is_told_once_more_is_kept_from_then_on(
    store: DeliveryStore, repository: EditRepository, redis: Redis
) -> None:
    edit_id = ended(repository)
    redis.expire(f"foi:edit:{edit_id}", 60)
    record = repository.get(edit_id)
    assert record is not None
    store.redeliver(record)
    assert redis.ttl(f"foi:edit:{edit_id}") >= repository.retention_s - 1


def test_an_edit_that_was_deleted_does_not_come_back(
    store: DeliveryStore, repository: EditRepository, redis: Redis
) -> None:
    edit_id = ended(repository)
    claim, delivery = claimed(store)
    repository.delete(edit_id)
    store.record(claim, delivery, attempt(500), wobble=0)
    assert not redis.exists(f"foi:edit:{edit_id}")
