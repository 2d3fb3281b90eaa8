"""What goes wrong on the way, and is tried again or not."""

from __future__ import annotations

import json
import logging

import pytest
from redis import Redis

from foi_client import AnswerError, ApiError, Client, UnreachableError
from jobs.records import Webhook
from jobs.repository import EditRepository
from tests.client.relay import Answer, Cut, Relay
from tests.support import encoded, picture, submission

PNG = encoded(picture())


def busy(status: int, kind: str, retry_after: str = "0") -> Answer:
    problem = {"type": f"/problems/{kind}", "title": "Busy", "status": status, "detail": "later"}
    headers = {"Content-Type": "application/problem+json", "Retry-After": retry_after}
    return Answer(status, json.dumps(problem).encode(), headers)


def test_a_submit_whose_answer_was_lost_makes_one_edit(far_client: Client, relay: Relay, redis: Redis) -> None:
    relay.faults += [Cut(), Cut(after=40), busy(503, "unavailable")]
    edit = far_client.submit(PNG, "make the ball red")
    assert redis.keys("foi:edit:*") == [f"foi:edit:{edit.id}"]
    keys = {line for head in relay.heads for line in head.splitlines() if line.lower().startswith("idempotency-key")}
    assert (len(relay.heads), len(keys)) == (4, 1)


def test_each_submit_has_a_key_of_its_own_unless_one_is_given(far_client: Client) -> None:
    first, second = (far_client.submit(PNG, "make the ball red") for _ in range(2))
    assert first.id != second.id
    again = [far_client.submit(PNG, "make the ball red", idempotency_key="order 7").id for _ in range(2)]
    assert again[0] == again[1]
    with pytest.raises(ApiError) as caught:
        far_client.submit(PNG, "make the ball blue", idempotency_key="order 7")
    assert caught.value.kind == "idempotency-mismatch"


@pytest.mark.parametrize(
    "fault",
    [
        busy(429, "quota-exceeded"),
        busy(503, "queue-full"),
        busy(409, "idempotency-in-flight"),
        Answer(502, b"<html>bad gateway"),
        Answer(504),
        Cut(),
    ],
    ids=str,
)
def test_what_passes_is_waited_out(far_client: Client, relay: Relay, fault: Answer | Cut) -> None:
    relay.faults += [fault, fault]
    assert far_client.submit(PNG, "make the ball red").status == "queued"
    assert len(relay.requests) == 3


def test_the_service_says_how_long_to_wait(far_client: Client, relay: Relay, caplog: pytest.LogCaptureFixture) -> None:
    relay.faults.append(busy(503, "no-workers", retry_after="1"))
    with caplog.at_level(logging.WARNING, "foi_client"):
        far_client.info()
    assert [record.getMessage() for record in caplog.records] == ["503 Busy: later; trying again in 1.0 s"]


def test_a_wait_that_is_longer_than_our_patience_is_an_error_at_once(far_client: Client, relay: Relay) -> None:
    relay.faults.append(busy(429, "quota-exceeded", retry_after="3600"))
    with pytest.raises(ApiError) as caught:
        far_client.info()
    assert (caught.value.kind, caught.value.retry_after) == ("quota-exceeded", 3600)
    assert len(relay.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500])
def test_what_does_not_pass_is_asked_once(far_client: Client, relay: Relay, status: int) -> None:
    relay.faults.append(busy(status, "something"))
    with pytest.raises(ApiError, match=f"{status} Busy: later"):
        far_client.submit(PNG, "make the ball red")
    assert len(relay.requests) == 1


def test_impatient_clients_never_ask_twice(relay: Relay) -> None:
    relay.faults.append(Cut())
    with (
        Client(relay.url, retry_for=0) as client,
        pytest.raises(UnreachableError, match=f"GET {relay.url}/v1/info") as caught,
    ):
        client.info()
    assert caught.value.__cause__ is not None
    assert len(relay.requests) == 1


def test_a_delete_whose_answer_was_lost_has_deleted(far_client: Client, relay: Relay) -> None:
    edit = far_client.submit(PNG, "make the ball red")
    relay.faults.append(Cut())
    far_client.delete(edit)
    with pytest.raises(ApiError, match="410"):
        far_client.get(edit)


def test_a_webhook_is_not_sent_twice_because_an_answer_was_lost(
    far_client: Client, relay: Relay, repository: EditRepository
) -> None:
    webhook = Webhook(url="https://receiver.example/hook", events=("edit.canceled",))
    new = submission().model_copy(update={"webhook": webhook})
    repository.create(new)
    far_client.cancel(new.id)
    relay.requests.clear()
    relay.faults += [busy(429, "quota-exceeded"), Cut()]
    with pytest.raises(UnreachableError):
        far_client.redeliver(new.id)
    assert len(relay.requests) == 2, "one that was refused, and one that may have arrived"


def test_a_service_that_is_not_there_is_waited_for_and_then_said(relay: Relay) -> None:
    relay.target = None
    with Client(relay.url, retry_for=0.3) as client, pytest.raises(UnreachableError):
        client.info()
    assert len(relay.requests) > 2


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html>hello", {"Content-Type": "text/html"}),
        Answer(200, b"[]", {"Content-Type": "application/json"}),
        Answer(200, b'{"id": 1}', {"Content-Type": "application/json"}),
    ],
    ids=["html", "list", "other"],
)
def test_an_answer_of_something_else_says_so(far_client: Client, relay: Relay, answer: Answer) -> None:
    relay.faults.append(answer)
    with pytest.raises(AnswerError, match="is base_url right"):
        far_client.get("edit_1")


def test_a_redirect_says_where_to(far_client: Client, relay: Relay) -> None:
    relay.faults.append(Answer(308, headers={"Location": "https://edits.example.org/v1/info"}))
    with pytest.raises(ApiError, match=r"redirected to https://edits\.example\.org"):
        far_client.info()
