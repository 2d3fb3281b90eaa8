"""Edits whose callers were waiting for them when the service had to end. OpenAI's clients have no way to ask for an
edit by its id, and no idempotency key: they send the same request again."""

from __future__ import annotations

from redis import Redis

KEPT_S = 600
"""How long an edit is held for its caller. The clients of OpenAI come again after 5 seconds, as they are told."""


class InterruptedEdits:
    """Needs a client that decodes."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def leave(self, owner: str, fingerprint: str, edit_id: str) -> None:
        """For the next request of the same owner with the same fields and files."""
        name = _key(owner, fingerprint)
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.rpush(name, edit_id)
            pipeline.expire(name, KEPT_S)
            pipeline.execute()

    def take(self, owner: str, fingerprint: str) -> str | None:
        """The edit that was left first. Each is given once: of two requests that were the same, each gets its own."""
        found = self._redis.lpop(_key(owner, fingerprint))
        return None if found is None else str(found)


def _key(owner: str, fingerprint: str) -> str:
    return f"foi:interrupted:{owner}:{fingerprint}"
