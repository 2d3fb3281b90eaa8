"""Edit records in Redis. Every change of state is one Lua script, so that no two processes can both make it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from redis import Redis
from redis.typing import EncodableT, FieldT

from jobs.records import EditRecord, Outcome, Progress, Submission, now

TOMBSTONE_DAYS = 7
"""How long an expired id still answers "expired" instead of "unknown"."""

# An attempt that is no longer the newest is a worker that was given up for dead: nothing it says counts.
_START = """
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'queued' and status ~= 'running' then return 0 end
redis.call('HSET', KEYS[1], 'status', 'running', 'started_at', ARGV[1])
redis.call('HDEL', KEYS[1], 'progress')
return redis.call('HINCRBY', KEYS[1], 'attempt', 1)
"""
_PROGRESS = """
local now = redis.call('HMGET', KEYS[1], 'status', 'attempt')
if now[1] ~= 'running' or now[2] ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'progress', ARGV[2])
return 1
"""
_COMMIT = """
local now = redis.call('HMGET', KEYS[1], 'status', 'attempt')
if now[1] ~= 'queued' and now[1] ~= 'running' then return 0 end
if ARGV[1] ~= '' and now[2] ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'status', ARGV[2], 'outcome', ARGV[3], 'expires_at', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('SET', KEYS[2], '1', 'EX', ARGV[6])
return 1
"""


class EditRepository:
    """Needs a client that decodes (`connect(url, decode=True)`)."""

    def __init__(self, redis: Redis, retention_s: int) -> None:
        self.redis = redis
        self.retention_s = retention_s
        self._start = redis.register_script(_START)
        self._progress = redis.register_script(_PROGRESS)
        self._commit = redis.register_script(_COMMIT)

    def create(self, submission: Submission) -> None:
        """The record of a new edit, queued. Expires by itself, also when no worker ever takes it."""
        key, tombstone = _keys(submission.id)
        fields: dict[FieldT, EncodableT] = {
            "submission": submission.model_dump_json(),
            "status": "queued",
            "attempt": "0",
            "expires_at": self._expiry(submission.created_at).isoformat(),
        }
        with self.redis.pipeline(transaction=True) as pipeline:
            pipeline.hset(key, mapping=fields)
            pipeline.expire(key, self.retention_s)
            pipeline.set(tombstone, "1", ex=self._tombstone_s)
            pipeline.execute()

    def get(self, edit_id: str) -> EditRecord | None:
        fields: dict[str, str] = self.redis.hgetall(_keys(edit_id)[0])  # type: ignore[assignment]
        return _record(fields) if "submission" in fields else None

    def is_expired(self, edit_id: str) -> bool:
        """Whether an edit of this id once existed; meant for ids that `get` does not know."""
        return bool(self.redis.exists(_keys(edit_id)[1]))

    def start(self, edit_id: str) -> int | None:
        """Marks the edit as running. The attempt that `progress` and `commit` must name; None: nothing to do."""
        attempt: Any = self._start(keys=[_keys(edit_id)[0]], args=[now().isoformat()])
        return int(attempt) or None

    def progress(self, edit_id: str, attempt: int, progress: Progress) -> bool:
        """False when the attempt is no longer the newest, or the edit has ended."""
        done: Any = self._progress(keys=[_keys(edit_id)[0]], args=[attempt, progress.model_dump_json()])
        return bool(done)

    def commit(self, edit_id: str, attempt: int | None, outcome: Outcome) -> bool:
        """Ends the edit: the first outcome stays, a later one changes nothing and gets False.

        `attempt` None is for those who end an edit that nobody runs (never queued, or its worker lost).
        """
        args = [
            "" if attempt is None else attempt,
            outcome.status,
            outcome.model_dump_json(),
            self._expiry(outcome.completed_at).isoformat(),
            self.retention_s,
            self._tombstone_s,
        ]
        done: Any = self._commit(keys=list(_keys(edit_id)), args=args)
        return bool(done)

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


def _keys(edit_id: str) -> tuple[str, str]:
    return f"foi:edit:{edit_id}", f"foi:tombstone:{edit_id}"


def _record(fields: dict[str, str]) -> EditRecord:
    def parsed(name: str, model: type[Any]) -> Any:
        return model.model_validate_json(fields[name]) if fields.get(name) else None

    return EditRecord.model_validate(
        {
            "submission": parsed("submission", Submission),
            "status": fields["status"],
            "attempt": int(fields["attempt"]),
            "expires_at": fields["expires_at"],
            "started_at": fields.get("started_at"),
            "progress": parsed("progress", Progress),
            "outcome": parsed("outcome", Outcome),
        }
    )
