"""Edit records in Redis. Every change of state is one Lua script, so that no two processes can both make it, and it
writes the edit's events too, so that they tell exactly what happened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any, Literal

from redis import Redis
from redis.typing import EncodableT, FieldT

from jobs.records import EditRecord, Outcome, Progress, Submission, now

TOMBSTONE_DAYS = 7
"""How long an expired id still answers "expired" instead of "unknown"."""
MAX_EVENTS = 512
"""Of one edit, about; older ones are trimmed: a progress that was passed is worth nothing."""

_PRELUDE = f"""
local function tell(kind, data)
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', {MAX_EVENTS}, '*', 'type', kind, 'data', data)
end
local function status_is(status)
  redis.call('HSET', KEYS[1], 'status', status)
  tell('status', cjson.encode({{status = status}}))
end
local now = redis.call('HMGET', KEYS[1], 'status', 'attempt')
local status, attempt = now[1], now[2]
"""
# An attempt that is no longer the newest is a worker that was given up for dead: nothing it says counts.
_START = """
if status ~= 'queued' and status ~= 'running' and status ~= 'canceling' then return 0 end
redis.call('HDEL', KEYS[1], 'progress')
if status ~= 'canceling' then
  redis.call('HSET', KEYS[1], 'started_at', ARGV[1])
  status_is('running')
end
redis.call('HINCRBY', KEYS[1], 'deaths', 1)
return redis.call('HINCRBY', KEYS[1], 'attempt', 1)
"""
_REPORT = """
if attempt ~= ARGV[1] then return 0 end
if status == 'canceling' then return 2 end
if status ~= 'running' then return 0 end
if redis.call('HGET', KEYS[1], 'progress') ~= ARGV[2] then
  redis.call('HSET', KEYS[1], 'progress', ARGV[2])
  tell('progress', ARGV[2])
end
if ARGV[3] ~= '' then tell('preview', ARGV[3]) end
return 1
"""
# A cancel that was accepted wins over an outcome that comes after it.
_COMMIT = """
if status ~= 'queued' and status ~= 'running' and status ~= 'canceling' then return 0 end
if ARGV[1] ~= '' and attempt ~= ARGV[1] then return 0 end
local new, outcome, stays = ARGV[2], ARGV[3], 1
if status == 'canceling' and new ~= 'canceled' then new, outcome, stays = 'canceled', ARGV[4], 0 end
redis.call('HSET', KEYS[1], 'outcome', outcome, 'expires_at', ARGV[5])
status_is(new)
if stays == 1 then
  for i = 8, #ARGV, 2 do tell(ARGV[i], ARGV[i + 1]) end
end
tell('done', cjson.encode({status = new}))
redis.call('EXPIRE', KEYS[1], ARGV[6])
redis.call('EXPIRE', KEYS[2], ARGV[6])
redis.call('SET', KEYS[3], '1', 'EX', ARGV[7])
return stays
"""
_RELEASE = """
if ARGV[1] ~= '' and attempt ~= ARGV[1] then return 0 end
if status ~= 'running' and status ~= 'canceling' then return 0 end
if ARGV[2] == '1' then redis.call('HINCRBY', KEYS[1], 'deaths', -1) end
redis.call('HDEL', KEYS[1], 'progress', 'started_at')
if status == 'running' then status_is('queued') end
return 1
"""
_CANCEL = """
if status == 'running' then status_is('canceling') end
return status
"""


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


class EditRepository:
    """Needs a client that decodes (`connect(url, decode=True)`)."""

    def __init__(self, redis: Redis, retention_s: int) -> None:
        self.redis = redis
        self.retention_s = retention_s
        self._start = redis.register_script(_PRELUDE + _START)
        self._report = redis.register_script(_PRELUDE + _REPORT)
        self._commit = redis.register_script(_PRELUDE + _COMMIT)
        self._release = redis.register_script(_PRELUDE + _RELEASE)
        self._cancel = redis.register_script(_PRELUDE + _CANCEL)

    def create(self, submission: Submission) -> None:
        """The record of a new edit, queued. Expires by itself, also when no worker ever takes it."""
        key, events, tombstone = _keys(submission.id)
        fields: dict[FieldT, EncodableT] = {
            "submission": submission.model_dump_json(),
            "status": "queued",
            "attempt": "0",
            "deaths": "0",
            "expires_at": self._expiry(submission.created_at).isoformat(),
        }
        with self.redis.pipeline(transaction=True) as pipeline:
            pipeline.hset(key, mapping=fields)
            pipeline.expire(key, self.retention_s)
            pipeline.xadd(events, {"type": "status", "data": json.dumps({"status": "queued"})})
            pipeline.expire(events, self.retention_s)
            pipeline.set(tombstone, "1", ex=self._tombstone_s)
            pipeline.execute()

    def get(self, edit_id: str) -> EditRecord | None:
        fields: dict[str, str] = self.redis.hgetall(_keys(edit_id)[0])  # type: ignore[assignment]
        return _record(fields) if "submission" in fields else None

    def is_expired(self, edit_id: str) -> bool:
        """Whether an edit of this id once existed; meant for ids that `get` does not know."""
        return bool(self.redis.exists(_keys(edit_id)[2]))

    def start(self, edit_id: str) -> int | None:
        """Marks the edit as running, unless its cancel was asked for. The attempt that the rest must name; None: there
        is nothing to do. Counts as a death until it ends otherwise."""
        attempt: Any = self._start(keys=_keys(edit_id), args=[now().isoformat()])
        return int(attempt) or None

    def report(self, reports: Sequence[Report]) -> list[Reply]:
        """Writes what attempts report, all in one round trip, and says what becomes of each."""
        with self.redis.pipeline(transaction=False) as pipeline:
            for one in reports:
                preview = json.dumps({"url": one.preview}) if one.preview else ""
                args: list[str | int] = [one.attempt, one.progress.model_dump_json(), preview]
                self._report(keys=_keys(one.edit_id), args=args, client=pipeline)
            return [Reply(int(reply)) for reply in pipeline.execute()]

    def commit(self, edit_id: str, attempt: int | None, outcome: Outcome) -> bool:
        """Ends the edit: the first outcome stays, a later one changes nothing and gets False, as does one that comes
        after the cancel.

        `attempt` None is for those who end an edit that nobody runs (never queued, or its worker lost).
        """
        events = [
            *(("mask", mask) for mask in outcome.masks),
            *(("output", output) for output in outcome.outputs),
        ]
        args = [
            "" if attempt is None else attempt,
            outcome.status,
            outcome.model_dump_json(),
            Outcome.canceled().model_dump_json(),
            self._expiry(outcome.completed_at).isoformat(),
            self.retention_s,
            self._tombstone_s,
            *(text for kind, data in events for text in (kind, data.model_dump_json())),
        ]
        return bool(self._commit(keys=_keys(edit_id), args=args))

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
            if self.commit(edit_id, None, Outcome.canceled()):
                return "canceled"

    def known(self, edit_ids: list[str]) -> set[str]:
        """Those of the ids that have a record."""
        with self.redis.pipeline(transaction=False) as pipeline:
            for edit_id in edit_ids:
                pipeline.exists(_keys(edit_id)[0])
            found = pipeline.execute()
        return {edit_id for edit_id, exists in zip(edit_ids, found, strict=True) if exists}

    def _expiry(self, moment: datetime) -> datetime:
        return moment + timedelta(seconds=self.retention_s)

    @property
    def _tombstone_s(self) -> int:
        return self.retention_s + TOMBSTONE_DAYS * 86_400


def events_key(edit_id: str) -> str:
    """The Redis Stream of an edit's events: status, progress, preview, mask, output, and one `done` at the end."""
    return f"foi:events:{edit_id}"


def _keys(edit_id: str) -> tuple[str, str, str]:
    return f"foi:edit:{edit_id}", events_key(edit_id), f"foi:tombstone:{edit_id}"


def _record(fields: dict[str, str]) -> EditRecord:
    def parsed(name: str, model: type[Any]) -> Any:
        return model.model_validate_json(fields[name]) if fields.get(name) else None

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
