"""For those who receive webhooks: whether a message is the service's (Standard Webhooks 1.0)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from foi_client.errors import AnswerError, WebhookError
from foi_client.models import Edit, Model
from foi_client.reading import read_edit


@dataclass(frozen=True, kw_only=True)
class WebhookMessage(Model):
    """`id` is the same at each attempt to deliver it: who keeps it can tell a repetition. `type` is edit.succeeded,
    edit.failed or edit.canceled, `edit` the edit as it ended then."""

    id: str
    type: str
    timestamp: datetime
    edit: Edit


def verify_webhook(body: bytes, headers: Mapping[str, str], secrets: str | Sequence[str]) -> WebhookMessage:
    """`body`: as it came, to the byte. `secrets` (`whsec_...`): one, or those of a rotation, any of which will do.

    Raises WebhookError for what none of them has signed within the last five minutes, and ModuleNotFoundError
    without `pip install standardwebhooks`."""
    from standardwebhooks import Webhook, WebhookVerificationError

    known = [secrets] if isinstance(secrets, str) else list(secrets)
    if not all(known) or not known:
        raise ValueError("no webhook secret was given; `python -m jobs.keys webhook-secret` prints it")
    given = {name.lower(): value for name, value in headers.items()}
    reason = ""
    for verifier in [Webhook(secret) for secret in known]:
        try:
            verifier.verify(body, given, json_parse=False)
            break
        except (WebhookVerificationError, ValueError) as error:  # ValueError: a signature that is no base64
            reason = str(error)
    else:
        raise WebhookError(f"the message is not from the service: {reason}")
    return _message(body, given["webhook-id"])


def _message(body: bytes, message_id: str) -> WebhookMessage:
    try:
        raw = json.loads(body)
        sent = datetime.fromisoformat(raw["timestamp"])
        return WebhookMessage(id=message_id, type=raw["type"], timestamp=sent, edit=read_edit(raw["data"]), raw=raw)
    except (KeyError, TypeError, ValueError) as error:
        raise AnswerError(f"the message is signed, and cannot be read ({error!r})") from error
