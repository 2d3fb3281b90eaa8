"""A message as the service sends it is taken, and no other."""

from __future__ import annotations

from datetime import timedelta

import pytest
from redis import Redis

from foi_client import AnswerError, WebhookError, verify_webhook
from jobs.records import Outcome, Webhook, now
from jobs.repository import EditRepository
from jobs.webhooks import Delivery, DeliveryStore, WebhookSecrets
from tests.support import submission
from worker.webhooks import signature


@pytest.fixture
def delivery(repository: EditRepository) -> Delivery:
    webhook = Webhook(url="https://receiver.example/hook", events=("edit.failed",))
    new = submission().model_copy(update={"webhook": webhook})
    repository.create(new)
    repository.commit(new.id, None, Outcome.failed("worker-lost", "The worker was lost", "three times"))
    record = repository.get(new.id)
    assert record is not None
    found = DeliveryStore(repository, "https://edits.example.org").prepare(record)
    assert found is not None
    return found


@pytest.fixture
def secrets(redis: Redis) -> WebhookSecrets:
    return WebhookSecrets(redis)


def test_a_message_of_the_service_is_read(delivery: Delivery, secrets: WebhookSecrets) -> None:
    headers = signature(delivery, secrets.current(""), now())
    message = verify_webhook(delivery.body.encode(), headers, secrets.current("")[0])
    assert (message.id, message.type) == (delivery.id, "edit.failed")
    assert (message.edit.id, message.edit.status) == (delivery.edit_id, "failed")
    assert message.edit.error is not None
    assert message.edit.error.kind == "worker-lost"
    assert message.timestamp == message.edit.completed_at
    shouted = {name.upper(): value for name, value in headers.items()}
    assert verify_webhook(delivery.body.encode(), shouted, secrets.current("")) == message


def test_both_secrets_hold_while_they_are_rotated(delivery: Delivery, secrets: WebhookSecrets) -> None:
    body, (old,) = delivery.body.encode(), secrets.current("")
    before = signature(delivery, secrets.current(""), now())
    new = secrets.rotate("")
    during = signature(delivery, secrets.current(""), now())
    assert verify_webhook(body, during, old) == verify_webhook(body, during, new)
    assert verify_webhook(body, before, [new, old]).edit.id == delivery.edit_id
    secrets.rotate("")
    after = signature(delivery, secrets.current(""), now())
    with pytest.raises(WebhookError):
        verify_webhook(body, after, old)


def test_what_was_changed_forged_or_kept_back_is_refused(delivery: Delivery, secrets: WebhookSecrets) -> None:
    body, current = delivery.body.encode(), secrets.current("")
    good = signature(delivery, current, now())
    bad = [
        (body + b" ", good),
        (body.replace(b"failed", b"filled"), good),
        (b"\xff", good),
        (body, {}),
        (body, {**good, "webhook-id": "msg_other"}),
        (body, {**good, "webhook-signature": "v1,nonsense"}),
        (body, {**good, "webhook-signature": "no comma"}),
        (body, {**good, "webhook-signature": "v2," + good["webhook-signature"].partition(",")[2]}),
        (body, {**good, "webhook-timestamp": "soon"}),
        (body, signature(delivery, ["whsec_" + "A" * 43 + "="], now())),
        (body, signature(delivery, current, now() - timedelta(minutes=6))),
        (body, signature(delivery, current, now() + timedelta(minutes=6))),
    ]
    for changed, headers in bad:
        with pytest.raises(WebhookError, match="not from the service"):
            verify_webhook(changed, headers, current)


def test_a_signed_message_of_something_else_is_told_apart(delivery: Delivery, secrets: WebhookSecrets) -> None:
    current = secrets.current("")
    other = delivery.model_copy(update={"body": '{"type": "invoice.paid"}'})
    with pytest.raises(AnswerError, match="cannot be read"):
        verify_webhook(other.body.encode(), signature(other, current, now()), current)


@pytest.mark.parametrize("none", ["", [], ["whsec_AAAA", ""]])
def test_without_a_secret_nothing_is_verified(delivery: Delivery, none: str | list[str]) -> None:
    with pytest.raises(ValueError, match="webhook-secret"):
        verify_webhook(delivery.body.encode(), {}, none)
