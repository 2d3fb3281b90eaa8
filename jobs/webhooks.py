"""Webhooks as they are stored: whom to tell what, how often it was tried, when it is tried next, and the secrets.

An edit's end puts its id into the sorted set DUE in the same script (an outbox). Whoever delivers claims ids for a
while by moving their time ahead: a deliverer that is killed loses none, two of them do not both send one.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import TypeAdapter
from redis import Redis

from jobs.metrics import WEBHOOK_OUTCOMES
from jobs.records import EditRecord, EndEvent, Record
from jobs.repository import DUE, EditRepository
from jobs.views import Edit, absolute, view

RETRY_S = (0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds between an attempt and the one before; the first is the edit's end."""
JITTER = 0.1
MAX_RETRY_AFTER_S = 86_400
LEASE_S = 30
KEPT_S = 5 * 86_400
"""How long a message and its attempts are kept after the last of them."""
MAX_ATTEMPTS = 50
"""The last ones, of a message that was sent again and again."""
SECRETS = 2
"""The present secret, and the one before it while receivers change over."""

State = Literal["pending", "succeeded", "failed", "stopped"]

_PRELUDE = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
"""
_CLAIM = """
local claimed = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])) do
  redis.call('ZADD', KEYS[1], now + ARGV[2], id)
  table.insert(claimed, id)
  table.insert(claimed, redis.call('ZSCORE', KEYS[1], id))
end
return claimed
"""
_MOVE = """
if redis.call('ZSCORE', KEYS[1], ARGV[1]) ~= ARGV[2] then return end
if ARGV[3] == '' then redis.call('ZREM', KEYS[1], ARGV[1]) else redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1]) end
"""
# As the scripts of `jobs.repository`: what deletes an edit, and what writes down what was sent, begin with a write that
# needs no memory.
_PREPARE = """
redis.call('EXPIRE', KEYS[1], ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'state', 'pending', 'tries', 0, 'next_at', now, 'attempts', '[]', unpack(ARGV, 2))
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""
# A claim that has run out, or that a wish to send again overtook, adds to the log and changes nothing else.
_RECORD = f"""
local id, claim, attempt, outcome, state, delay = unpack(ARGV, 1, 6)
redis.call('EXPIRE', KEYS[2], {KEPT_S})
redis.call('HINCRBY', KEYS[3], outcome, 1)
local log = redis.call('HGET', KEYS[2], 'attempts')
if not log then return end
log = cjson.decode(log)
table.insert(log, cjson.decode(attempt))
if #log > {MAX_ATTEMPTS} then table.remove(log, 1) end
redis.call('HSET', KEYS[2], 'attempts', cjson.encode(log))
if redis.call('ZSCORE', KEYS[1], id) ~= claim then return end
redis.call('HINCRBY', KEYS[2], 'tries', 1)
if delay == '' then
  redis.call('ZREM', KEYS[1], id)
  redis.call('HSET', KEYS[2], 'state', state, 'next_at', '')
else
  redis.call('ZADD', KEYS[1], now + delay, id)
  redis.call('HSET', KEYS[2], 'state', state, 'next_at', now + delay)
end
"""
_REDELIVER = """
redis.call('HSET', KEYS[2], 'state', 'pending', 'tries', 0, 'next_at', now)
redis.call('ZADD', KEYS[1], now, ARGV[1])
"""
_FIRST_SECRET = """
if redis.call('LLEN', KEYS[1]) == 0 then redis.call('LPUSH', KEYS[1], ARGV[1]) end
return redis.call('LRANGE', KEYS[1], 0, -1)
"""


class Message(Record):
    """What a receiver gets, as JSON."""

    type: EndEvent
    timestamp: datetime
    data: Edit


class Attempt(Record):
    """One try: the status that it was answered with, if it was, and in words why it is no success."""

    at: datetime
    status: int | None
    error: str | None
    ms: int


class Delivery(Record):
    """One message, the same bytes at every attempt. `tries` are counted from the edit's end, or from the last wish to
    send it again."""

    edit_id: str
    owner: str
    url: str
    body: str
    state: State
    next_at: datetime | None
    tries: int
    attempts: tuple[Attempt, ...]

    @property
    def id(self) -> str:
        return f"msg_{self.edit_id.removeprefix('edit_')}"


@dataclass(frozen=True)
class Claim:
    """The right to deliver one message, until its time."""

    edit_id: str
    until: str


def event(record: EditRecord) -> EndEvent | None:
    """The end that the edit's webhook is to be told; None where there is nothing to tell, or not yet."""
    webhook, outcome = record.submission.webhook, record.outcome
    if webhook is None or outcome is None:
        return None
    kind: EndEvent = f"edit.{outcome.status}"  # type: ignore[assignment]
    return kind if kind in webhook.events else None


def retry_delay(tries: int, wobble: float, retry_after: float | None = None) -> float | None:
    """Seconds until the next attempt after `tries` failed ones; None: it was the last. `wobble` is random, -1 to 1:
    messages that failed together do not come back together."""
    if tries >= len(RETRY_S):
        return None
    return max(RETRY_S[tries] * (1 + JITTER * wobble), min(retry_after or 0, MAX_RETRY_AFTER_S))


class DeliveryStore:
    def __init__(self, repository: EditRepository, public_url: str = "") -> None:
        """`public_url`: what the addresses in messages begin with."""
        self._repository, self._redis, self._public_url = repository, repository.redis, public_url
        self._claim = self._redis.register_script(_PRELUDE + _CLAIM)
        self._move = self._redis.register_script(_PRELUDE + _MOVE)
        self._prepare = self._redis.register_script(_PRELUDE + _PREPARE)
        self._record = self._redis.register_script(_PRELUDE + _RECORD)
        self._redeliver = self._redis.register_script(_PRELUDE + _REDELIVER)

    def claim(self, count: int) -> list[Claim]:
        """At most so many that are due, for LEASE_S seconds."""
        found: Any = self._claim(keys=[DUE], args=[count, LEASE_S])
        return [Claim(edit_id, until) for edit_id, until in zip(found[::2], found[1::2], strict=True)]

    def load(self, claim: Claim) -> Delivery | None:
        """The message, made from the edit's record the first time. None: there is nothing to tell, and the claim is
        done with."""
        delivery = self.get(claim.edit_id)
        if delivery is None:
            record = self._repository.get(claim.edit_id)
            delivery = self.prepare(record) if record is not None else None
        if delivery is None:
            self._move(keys=[DUE], args=[claim.edit_id, claim.until, ""])
        return delivery

    def prepare(self, record: EditRecord) -> Delivery | None:
        """The message of an edit that has ended; None where its webhook is not to be told."""
        kind, submission, outcome = event(record), record.submission, record.outcome
        if kind is None or submission.webhook is None or outcome is None:
            return None
        message = Message(type=kind, timestamp=outcome.completed_at, data=absolute(view(record), self._public_url))
        fields = {"owner": submission.owner, "url": submission.webhook.url, "body": message.model_dump_json()}
        pairs = [text for pair in fields.items() for text in pair]
        self._prepare(keys=[_key(submission.id)], args=[KEPT_S, *pairs])
        return self.get(submission.id)

    def get(self, edit_id: str) -> Delivery | None:
        """The message of an edit, if it has been made."""
        fields: dict[str, str] = self._redis.hgetall(_key(edit_id))  # type: ignore[assignment]
        return _delivery(edit_id, fields) if fields else None

    def postpone(self, claim: Claim, seconds: float) -> None:
        """Gives the claim back: the message is due in so many seconds, with nothing tried."""
        self._move(keys=[DUE], args=[claim.edit_id, claim.until, seconds])

    def record(
        self, claim: Claim, delivery: Delivery, attempt: Attempt, wobble: float, retry_after: float | None = None
    ) -> State:
        """Adds an attempt, which says whether there is a next one and when; `wobble` as in `retry_delay`. The edit is
        kept beyond the next one: a success that is told late has its files."""
        outcome = _outcome(attempt.status)
        delay = retry_delay(delivery.tries + 1, wobble, retry_after) if outcome == "failed" else None
        state: State = outcome if delay is None else "pending"
        if delay is not None:
            self._repository.keep(claim.edit_id, delay)
        args = [claim.edit_id, claim.until, attempt.model_dump_json(), outcome, state, "" if delay is None else delay]
        self._record(keys=[DUE, _key(claim.edit_id), WEBHOOK_OUTCOMES], args=args)
        return state

    def redeliver(self, record: EditRecord) -> Delivery | None:
        """Makes the message due now, however often it was tried. None where the webhook is not to be told."""
        delivery = self.prepare(record)
        if delivery is None:
            return None
        self._repository.keep(delivery.edit_id, 0)
        self._redeliver(keys=[DUE, _key(delivery.edit_id)], args=[delivery.edit_id])
        return self.get(delivery.edit_id)


class WebhookSecrets:
    """The secrets that an owner's messages are signed with; the owner "" is the deployment where keys are off."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._first = redis.register_script(_FIRST_SECRET)

    def current(self, owner: str) -> list[str]:
        """The newest first. There is always one: the first is made when it is first asked for."""
        found: Any = self._first(keys=[_secrets_key(owner)], args=[_new_secret()])
        return [str(secret) for secret in found]

    def rotate(self, owner: str) -> str:
        """A new secret. The one before signs too until the next rotation."""
        secret = _new_secret()
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.lpush(_secrets_key(owner), secret)
            pipeline.ltrim(_secrets_key(owner), 0, SECRETS - 1)
            pipeline.execute()
        return secret


def _outcome(status: int | None) -> Literal["succeeded", "failed", "stopped"]:
    if status is not None and 200 <= status < 300:
        return "succeeded"
    return "stopped" if status == 410 else "failed"


_ATTEMPTS: TypeAdapter[Sequence[Attempt]] = TypeAdapter(tuple[Attempt, ...])


def _delivery(edit_id: str, fields: dict[str, str]) -> Delivery:
    attempts = _ATTEMPTS.validate_json(fields["attempts"])
    next_at = datetime.fromtimestamp(float(fields["next_at"]), UTC) if fields["next_at"] else None
    return Delivery.model_validate({**fields, "edit_id": edit_id, "attempts": attempts, "next_at": next_at})


def _new_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def _key(edit_id: str) -> str:
    return f"foi:delivery:{edit_id}"


def _secrets_key(owner: str) -> str:
    return f"foi:webhook-secrets:{owner}"
