"""Edit records in Redis. Every change of state is one Lua script, so that no two processes can both make it, and it
writes the edit's events too, so that they tell exactly what happened."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any, Literal

from pydantic import ValidationError
from redis import Redis

from jobs import clock, metrics
from jobs.logs import get_logger
from jobs.queue import WITHDRAW, Command
from jobs.records import EditRecord, Outcome, Progress, Submission
from jobs.views import mask_views, output_views

WAITING_S = 7 * 86_400
"""How long an edit may wait and run, before it expires without an end."""
TOMBSTONE_DAYS = 7
"""How long an expired id still answers "expired" instead of "unknown"."""
MAX_EVENTS = 512
"""Of one edit, about; older ones are trimmed: a progress that was passed is worth nothing."""

PREVIEW_S = 60
"""How long the last preview of an edit is kept; its event in the stream only says that there was one."""

DUE = "foi:webhooks:due"
"""Sorted set of the edits of whose end a webhook is to tell, by the time of its next try in seconds."""
DELETED_S = 60
"""How long a deleted edit's events can still be read by those who were listening."""
OWNERS = "foi:edits:"
"""Sorted sets of edit ids by the time they came in, in microseconds: one for each owner, and one for all."""
ALL_OWNERS = "*"
PAGE_BATCH, PAGE_SCAN = 100, 1000
"""Records that one page reads at once, and looks through at most."""

# A client that misses the answer to a script sends it again: the second time it must say the same and change nothing.
# Keys are also named inside the scripts, from what the record holds: one Redis, not a cluster.
# A Redis that is full refuses a script whose first write needs memory, and lets all others go on. So what takes an edit
# in begins with such a write, and what brings one on or ends it does not: work that was accepted gets its end.
_PRELUDE = f"""
local function tell(kind, data)
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', {MAX_EVENTS}, '*', 'type', kind, 'data', data)
end
local function status_is(status)
  redis.call('HSET', KEYS[1], 'status', status)
  tell('status', cjson.encode({{status = status}}))
end
local function priority()
  return cjson.decode(redis.call('HGET', KEYS[1], 'submission')).priority or 'normal'
end
local now = redis.call('HMGET', KEYS[1], 'status', 'attempt')
local status, attempt = now[1], now[2]
"""
# The tombstone, not the record: an edit may have been run and deleted before its caller's second try comes.
# A claim that has merely run out is taken again; one that another request has is lost.
_CREATE = f"""
local id, owner, moment, active = ARGV[1], ARGV[2], tonumber(ARGV[3]), 'foi:active:' .. ARGV[2]
if redis.call('EXISTS', KEYS[3]) == 1 then return 1 end
if ARGV[8] ~= '' and (redis.call('GET', KEYS[4]) or ARGV[8]) ~= ARGV[8] then return -1 end
local time, most = redis.call('TIME')[1] * 1e6, tonumber(ARGV[4])
if most > 0 and redis.call('ZCOUNT', active, '(' .. time, '+inf') >= most then return 0 end
local kept, tombstone, place = tonumber(ARGV[5]), ARGV[6], 10 + ARGV[9]
redis.call('HSET', KEYS[1], 'owner', owner, 'status', 'queued', 'attempt', 0, 'deaths', 0, unpack(ARGV, 10, place - 1))
redis.call('ZREMRANGEBYSCORE', active, '-inf', time)
redis.call('EXPIRE', KEYS[1], kept)
redis.call('SET', KEYS[3], owner, 'EX', tombstone)
redis.call('ZADD', active, time + kept * 1e6, id)
redis.call('EXPIRE', active, kept)
for _, name in ipairs({{owner, '{ALL_OWNERS}'}}) do
  redis.call('ZADD', '{OWNERS}' .. name, moment, id)
  redis.call('ZREMRANGEBYSCORE', '{OWNERS}' .. name, '-inf', moment - 2 * kept * 1e6)
  redis.call('EXPIRE', '{OWNERS}' .. name, 2 * kept)
end
if ARGV[7] ~= '' then redis.call('SET', KEYS[4], ARGV[8], 'EX', ARGV[7]) end
tell('status', cjson.encode({{status = 'queued'}}))
redis.call('EXPIRE', KEYS[2], kept)
while place < #ARGV do
  local last = place + ARGV[place]
  redis.call(unpack(ARGV, place + 1, last))
  place = last + 1
end
return 1
"""
# An attempt that is no longer the newest is a worker that was given up for dead: nothing it says counts.
_START = """
if redis.call('HGET', KEYS[1], 'starter') == ARGV[2] then return attempt end
if status ~= 'queued' and status ~= 'running' and status ~= 'canceling' then return 0 end
redis.call('HDEL', KEYS[1], 'progress')
if status ~= 'canceling' then
  redis.call('HSET', KEYS[1], 'started_at', ARGV[1])
  status_is('running')
end
redis.call('HSET', KEYS[1], 'starter', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'deaths', 1)
return redis.call('HINCRBY', KEYS[1], 'attempt', 1)
"""
_REPORT = f"""
if attempt ~= ARGV[1] then return 0 end
if status == 'canceling' then return 2 end
if status ~= 'running' then return 0 end
if redis.call('HGET', KEYS[1], 'progress') ~= ARGV[2] then
  if type(redis.pcall('HSET', KEYS[1], 'progress', ARGV[2])) == 'table' then return 1 end
  tell('progress', ARGV[2])
end
if ARGV[3] ~= '' then
  local shown = redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', {MAX_EVENTS}, '*', 'type', 'preview', 'data', '{{}}')
  if type(shown) == 'string' then
    redis.call('SET', 'foi:preview:' .. ARGV[4], shown .. ' ' .. ARGV[3], 'EX', {PREVIEW_S})
  end
end
return 1
"""
# A cancel that was accepted wins over an outcome that comes after it.
_COMMIT = f"""
if redis.call('HGET', KEYS[1], 'outcome') == ARGV[3] then return 1 end
if status ~= 'queued' and status ~= 'running' and status ~= 'canceling' then return 0 end
if ARGV[1] ~= '' and attempt ~= ARGV[1] then return 0 end
redis.call('EXPIRE', KEYS[1], ARGV[6])
if status == 'queued' then withdraw(ARGV[8], priority()) end
local new, outcome, stays = ARGV[2], ARGV[3], 1
if status == 'canceling' and new ~= 'canceled' then new, outcome, stays = 'canceled', ARGV[4], 0 end
redis.call('HSET', KEYS[1], 'outcome', outcome, 'expires_at', ARGV[5])
status_is(new)
if stays == 1 then
  for i = 11, #ARGV, 2 do tell(ARGV[i], ARGV[i + 1]) end
end
for name, amount in pairs(cjson.decode(ARGV[stays == 1 and 9 or 10])) do
  redis.pcall('HINCRBYFLOAT', '{metrics.COUNTS}', name, amount)
end
tell('done', cjson.encode({{status = new}}))
redis.call('EXPIRE', KEYS[2], ARGV[6])
redis.call('EXPIRE', KEYS[3], ARGV[7])
redis.call('ZREM', 'foi:active:' .. (redis.call('HGET', KEYS[1], 'owner') or ''), ARGV[8])
if redis.call('HEXISTS', KEYS[1], 'webhook') == 1 then
  redis.call('ZADD', KEYS[4], redis.call('TIME')[1], ARGV[8])
end
return stays
"""
_RELEASE = """
if ARGV[1] ~= '' and attempt ~= ARGV[1] then return 0 end
if status ~= 'running' and status ~= 'canceling' then return 0 end
redis.call('HDEL', KEYS[1], 'progress', 'started_at')
if ARGV[2] == '1' then redis.call('HINCRBY', KEYS[1], 'deaths', -1) end
if status == 'running' then status_is('queued') end
return 1
"""
_DELETE = f"""
if not status then return 0 end
local owner = redis.call('HGET', KEYS[1], 'owner')
redis.call('ZREM', '{OWNERS}' .. owner, ARGV[1])
redis.call('ZREM', '{OWNERS}{ALL_OWNERS}', ARGV[1])
withdraw(ARGV[1], priority())
redis.call('DEL', KEYS[1], 'foi:preview:' .. ARGV[1])
redis.call('EXPIRE', KEYS[2], {DELETED_S})
return 1
"""
_KEEP = """
if not status or redis.call('TTL', KEYS[1]) >= tonumber(ARGV[1]) then return end
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], 'expires_at', ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[1])
redis.call('EXPIRE', KEYS[3], ARGV[3])
"""
_CANCEL = """
if status == 'running' then
  redis.call('HDEL', KEYS[1], '')  -- a first write that needs no memory
  status_is('canceling')
end
return status
"""

log = get_logger(__name__)


class Reply(IntEnum):
    """What becomes of an attempt that has reported."""

    LOST = 0
    GO_ON = 1
    CANCELED = 2


@dataclass(frozen=True)
class Report:
    """One attempt's present progress; `preview` is a small picture as a data URL, or empty."""

    edit_id: str
    attempt: int
    progress: Progress
    preview: str = ""


@dataclass(frozen=True, order=True)
class Cursor:
    """A place in the list of an owner's edits, the newest first: after this one."""

    moment: int
    edit_id: str


@dataclass(frozen=True)
class Claim:
    """An idempotency key that is ours while it has this `value`, and is kept for `ttl_s` once the edit is there."""

    key: str
    value: str
    ttl_s: int


class ClaimLostError(Exception):
    """The claim had expired, and another request has the idempotency key by now."""


class EditRepository:
    """Needs a client that decodes (`connect(url, decode=True)`)."""

    def __init__(self, redis: Redis, retention_s: int) -> None:
        self.redis = redis
        self.retention_s = retention_s
        self._create = redis.register_script(_PRELUDE + _CREATE)
        self._delete = redis.register_script(WITHDRAW + _PRELUDE + _DELETE)
        self._start = redis.register_script(_PRELUDE + _START)
        self._report = redis.register_script(_PRELUDE + _REPORT)
        self._commit = redis.register_script(WITHDRAW + _PRELUDE + _COMMIT)
        self._release = redis.register_script(_PRELUDE + _RELEASE)
        self._keep = redis.register_script(_PRELUDE + _KEEP)
        self._cancel = redis.register_script(_PRELUDE + _CANCEL)

    def now(self) -> datetime:
        """The present by Redis's clock: all that is compared with what another process wrote is by it."""
        return clock.now(self.redis)

    def create(
        self,
        submission: Submission,
        max_active: int = 0,
        claim: Claim | None = None,
        entry: Sequence[Command] = (),
    ) -> bool:
        """The record of a new edit, its idempotency key, and its place in the queue (`entry`: `EditQueue.entry`), all
        or nothing. False: its owner has `max_active` edits that wait or run (0: no limit), and nothing was written.
        Raises ClaimLostError, and nothing was written either; and RedisError, and all may have been written: the
        answer may have been lost on its way."""
        kept_s = WAITING_S + self.retention_s
        fields: dict[str, str] = {
            "submission": submission.model_dump_json(),
            "expires_at": self.expiry(submission).isoformat(),
        }
        if submission.webhook is not None:
            fields["webhook"] = "1"
        args = [
            submission.id,
            submission.owner,
            _microseconds(submission.created_at),
            max_active,
            kept_s,
            WAITING_S + self._tombstone_s,
            claim.ttl_s if claim else "",
            claim.value if claim else "",
            2 * len(fields),
            *(text for pair in fields.items() for text in pair),
            *(part for command in entry for part in (len(command), *command)),
        ]
        created: Any = self._create(keys=[*_keys(submission.id), claim.key if claim else ""], args=args)
        if created == -1:
            raise ClaimLostError
        return bool(created)

    def get(self, edit_id: str) -> EditRecord | None:
        fields: dict[str, str] = self.redis.hgetall(_keys(edit_id)[0])  # type: ignore[assignment]
        return _record(edit_id, fields)

    def past_owner(self, edit_id: str) -> str | None:
        """Whose an edit was that has expired or was deleted; None where there never was one."""
        owner: Any = self.redis.get(_keys(edit_id)[2])
        return owner if owner is None else str(owner)

    def page(
        self, owner: str, limit: int, after: Cursor | None = None, statuses: Collection[str] = ()
    ) -> tuple[list[EditRecord], Cursor | None]:
        """At most `limit` edits of an owner (or of ALL_OWNERS), the newest first, and where the next page begins; None:
        there are no more. A page looks through at most PAGE_SCAN records: it may be short and not the last."""
        found: list[EditRecord] = []
        for _ in range(PAGE_SCAN // PAGE_BATCH):
            places, more = self._places(owner, after, PAGE_BATCH if statuses else limit + 2)
            for place, record in zip(places, self._records([place.edit_id for place in places]), strict=True):
                after = place
                if record is not None and (not statuses or record.status in statuses):
                    found.append(record)
                if len(found) == limit and (more or place != places[-1]):
                    return found, after
            if not more:
                return found, None
        return found, after

    def _places(self, owner: str, after: Cursor | None, count: int) -> tuple[list[Cursor], bool]:
        """The next places, and whether there may be more."""
        highest = "+inf" if after is None else after.moment
        found: Any = self.redis.zrevrangebyscore(OWNERS + owner, highest, "-inf", start=0, num=count, withscores=True)
        places = [Cursor(int(moment), edit_id) for edit_id, moment in found]
        return [place for place in places if after is None or place < after], len(found) == count

    def _records(self, edit_ids: Sequence[str]) -> list[EditRecord | None]:
        with self.redis.pipeline(transaction=False) as pipeline:
            for edit_id in edit_ids:
                pipeline.hgetall(_keys(edit_id)[0])
            found = pipeline.execute()
        return [_record(edit_id, fields) for edit_id, fields in zip(edit_ids, found, strict=True)]

    def delete(self, edit_id: str) -> None:
        """Removes the record of an edit that has ended, and its job if one waits. Fine when it is gone."""
        self._delete(keys=_keys(edit_id), args=[edit_id])

    def start(self, edit_id: str) -> int | None:
        """Marks the edit as running, unless its cancel was asked for. The attempt that the rest must name; None: there
        is nothing to do. Counts as a death until it ends otherwise."""
        attempt: Any = self._start(keys=_keys(edit_id), args=[self.now().isoformat(), uuid.uuid4().hex])
        return int(attempt) or None

    def report(self, reports: Sequence[Report]) -> list[Reply]:
        """Writes what attempts report, all in one round trip, and says what becomes of each."""
        with self.redis.pipeline(transaction=False) as pipeline:
            for one in reports:
                preview = json.dumps({"url": one.preview}) if one.preview else ""
                args: list[str | int] = [one.attempt, one.progress.model_dump_json(), preview, one.edit_id]
                self._report(keys=_keys(one.edit_id), args=args, client=pipeline)
            return [Reply(int(reply)) for reply in pipeline.execute()]

    def commit(self, edit_id: str, attempt: int | None, outcome: Outcome) -> bool:
        """Ends the edit: the first outcome stays, a later one changes nothing and gets False, as does one that comes
        after the cancel. One that waits leaves the queue.

        `attempt` None is for those who end an edit that nobody runs (never queued, or its worker lost).
        """
        events = [
            *(("mask", mask) for mask in mask_views(edit_id, outcome)),
            *(("output", output) for output in output_views(edit_id, outcome)),
        ]
        canceled = Outcome.canceled(outcome.completed_at)
        args = [
            "" if attempt is None else attempt,
            outcome.status,
            outcome.model_dump_json(),
            canceled.model_dump_json(),
            self._expiry(outcome.completed_at).isoformat(),
            self.retention_s,
            self._tombstone_s,
            edit_id,
            json.dumps(metrics.ended(outcome)),
            json.dumps(metrics.ended(canceled)),
            *(text for kind, data in events for text in (kind, data.model_dump_json())),
        ]
        return bool(self._commit(keys=[*_keys(edit_id), DUE], args=args))

    def release(self, edit_id: str, attempt: int | None, *, blameless: bool) -> bool:
        """Back to queued, for another worker to run. `blameless`: its worker did not die under it."""
        args = ["" if attempt is None else attempt, int(blameless)]
        return bool(self._release(keys=_keys(edit_id), args=args))

    def cancel(self, edit_id: str) -> Literal["canceled", "canceling", "ended", "unknown"]:
        """A queued edit is canceled at once, a running one at its next step; one that has ended stays as it is."""
        while True:
            status: Any = self._cancel(keys=_keys(edit_id), args=[])
            if status in ("running", "canceling"):
                return "canceling"
            if status != "queued":
                return "ended" if status else "unknown"
            if self.commit(edit_id, None, Outcome.canceled(self.now())):
                return "canceled"

    def keep(self, edit_id: str, seconds: float) -> None:
        """The retention of an edit that has ended counts from so many seconds from now, unless it ends later anyhow."""
        expires_at = self._expiry(self.now()) + timedelta(seconds=seconds)
        kept_s = self.retention_s + math.ceil(seconds)
        args: list[int | str] = [kept_s, expires_at.isoformat(), kept_s + TOMBSTONE_DAYS * 86_400]
        self._keep(keys=_keys(edit_id), args=args)

    def known(self, edit_ids: list[str]) -> set[str]:
        """Those of the ids that have a record."""
        with self.redis.pipeline(transaction=False) as pipeline:
            for edit_id in edit_ids:
                pipeline.exists(_keys(edit_id)[0])
            found = pipeline.execute()
        return {edit_id for edit_id, exists in zip(edit_ids, found, strict=True) if exists}

    def remembers_any(self, edit_ids: Sequence[str]) -> bool:
        """Whether one of them was made here, if only long ago."""
        return bool(self.redis.exists(*map(tombstone_key, edit_ids)))

    def expiry(self, submission: Submission) -> datetime:
        """When an edit that does not end is gone."""
        return self._expiry(submission.created_at) + timedelta(seconds=WAITING_S)

    def _expiry(self, moment: datetime) -> datetime:
        return moment + timedelta(seconds=self.retention_s)

    @property
    def _tombstone_s(self) -> int:
        return self.retention_s + TOMBSTONE_DAYS * 86_400


def events_key(edit_id: str) -> str:
    """The Redis Stream of an edit's events: status, progress, preview, mask, output, and one `done` at the end."""
    return f"foi:events:{edit_id}"


def tombstone_key(edit_id: str) -> str:
    """There from an edit's creation until long after its record is gone: whose it was."""
    return f"foi:tombstone:{edit_id}"


def preview_key(edit_id: str) -> str:
    """The last preview of an edit: the id of its event, and the event's data as JSON."""
    return f"foi:preview:{edit_id}"


def _keys(edit_id: str) -> tuple[str, str, str]:
    return f"foi:edit:{edit_id}", events_key(edit_id), tombstone_key(edit_id)


def _microseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1e6)


def _record(edit_id: str, fields: dict[str, str]) -> EditRecord | None:
    """None also for one that another version of us wrote and this one cannot read: it counts as gone, and stops
    nothing else."""

    def parsed(name: str, model: type[Any]) -> Any:
        return model.model_validate_json(fields[name]) if fields.get(name) else None

    if "submission" not in fields:
        return None
    try:
        return EditRecord.model_validate(
            {
                "submission": parsed("submission", Submission),
                "status": fields["status"],
                "attempt": int(fields["attempt"]),
                "deaths": int(fields.get("deaths", 0)),
                "expires_at": fields["expires_at"],
                "started_at": fields.get("started_at"),
                "progress": parsed("progress", Progress),
                "outcome": parsed("outcome", Outcome),
            }
        )
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, found['loc']))}: {found['type']}" for found in error.errors(include_input=False)]
        log.error("record cannot be read", edit_id=edit_id, wrong=wrong)  # its texts are nobody's business
        return None
