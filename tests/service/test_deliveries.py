"""Webhooks over HTTP: the log of an edit's message, and sending it again."""

from __future__ import annotations

import httpx
from redis import Redis

from jobs.records import Outcome, Webhook, now
from jobs.repository import DUE, EditRepository
from jobs.webhooks import Attempt, DeliveryStore
from tests.support import submission

URL = "https://receiver.example/hook"


def new_edit(repository: EditRepository, *events: str) -> str:
    """A queued edit; without events it has no webhook."""
    webhook = Webhook(url=URL, events=events) if events else None  # type: ignore[arg-type]
    new = submission().model_copy(update={"webhook": webhook})
    repository.create(new)
    return new.id


def end(repository: EditRepository, edit_id: str) -> None:
    assert repository.commit(edit_id, None, Outcome(status="succeeded", completed_at=now()))


def try_once(repository: EditRepository, status: int) -> None:
    store = DeliveryStore(repository)
    (claim,) = store.claim(1)
    delivery = store.load(claim)
    assert delivery is not None
    store.record(claim, delivery, Attempt(at=now(), status=status, error=None, ms=12), wobble=0)


def test_the_log_tells_of_each_attempt(client: httpx.Client, repository: EditRepository) -> None:
    edit_id = new_edit(repository, "edit.succeeded")
    assert client.get(f"/v1/edits/{edit_id}/deliveries").json() == {"data": []}
    end(repository, edit_id)
    try_once(repository, 500)
    (found,) = client.get(f"/v1/edits/{edit_id}/deliveries").json()["data"]
    assert found.keys() == {"id", "url", "state", "next_at", "attempts"}
    assert (found["id"], found["url"], found["state"]) == (f"msg_{edit_id[5:]}", URL, "pending")
    assert found["next_at"] is not None
    (attempt,) = found["attempts"]
    assert attempt.keys() == {"at", "status", "error", "ms"}
    assert (attempt["status"], attempt["error"], attempt["ms"]) == (500, None, 12)


def test_it_can_be_sent_again_at_once_under_the_same_id(
    client: httpx.Client, repository: EditRepository, redis: Redis
) -> None:
    edit_id = new_edit(repository, "edit.succeeded")
    end(repository, edit_id)
    try_once(repository, 410)
    assert client.get(f"/v1/edits/{edit_id}/deliveries").json()["data"][0]["state"] == "stopped"
    answer = client.post(f"/v1/edits/{edit_id}/redeliver")
    (found,) = answer.json()["data"]
    assert (answer.status_code, found["state"], found["id"]) == (202, "pending", f"msg_{edit_id[5:]}")
    assert redis.zcard(DUE) == 1
    try_once(repository, 204)
    (found,) = client.get(f"/v1/edits/{edit_id}/deliveries").json()["data"]
    assert (found["state"], found["next_at"], [a["status"] for a in found["attempts"]]) == (
        "succeeded",
        None,
        [410, 204],
    )


def test_sending_again_says_why_there_is_nothing_to_send(client: httpx.Client, repository: EditRepository) -> None:
    without, waiting, other = (new_edit(repository, *events) for events in ((), ("edit.succeeded",), ("edit.failed",)))
    end(repository, without)
    end(repository, other)
    reasons = {without: "without a webhook_url", waiting: "has not ended", other: "leave out edit.succeeded"}
    for edit_id, reason in reasons.items():
        answer = client.post(f"/v1/edits/{edit_id}/redeliver")
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-parameter")
        assert reason in answer.json()["detail"]
        assert client.get(f"/v1/edits/{edit_id}/deliveries").json() == {"data": []}


def test_unknown_and_deleted_edits_answer_as_everywhere(client: httpx.Client, repository: EditRepository) -> None:
    edit_id = new_edit(repository, "edit.succeeded")
    repository.delete(edit_id)
    for path, status in ((edit_id, 410), ("edit_" + "0" * 32, 404), ("x", 404)):
        assert client.get(f"/v1/edits/{path}/deliveries").status_code == status
        assert client.post(f"/v1/edits/{path}/redeliver").status_code == status
