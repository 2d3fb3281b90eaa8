"""Stream tokens: what an EventSource, which can send no header, sends in the address instead of an API key.

Good for the events of one edit, for a few minutes, as long as the key that it was made with is not revoked. It is
signed (HMAC-SHA256, RFC 2104) with a secret that all processes of the service find in Redis, and dated by its clock.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis

TTL_S = 300
SECRET = "foi:stream-token-secret"
_TOKEN = re.compile(r"([0-9]{1,12})\.([0-9a-f]{0,64})\.([0-9a-f]{64})", re.ASCII)


class StreamTokens:
    """Needs a client that decodes."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def make(self, edit_id: str, digest: str) -> tuple[str, datetime]:
        """The token, and when it ends. `digest`: of the API key, empty where keys are off."""
        secret, moment = await self._secret_and_time()
        ends = moment + TTL_S
        return f"{ends}.{digest}.{_signature(secret, edit_id, ends, digest)}", datetime.fromtimestamp(ends, UTC)

    async def read(self, token: str, edit_id: str) -> str | None:
        """The digest of the API key that it was made with; None for one that is not good for this edit now."""
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        ends, digest, signature = int(match[1]), match[2], match[3]
        secret, moment = await self._secret_and_time()
        right = hmac.compare_digest(signature, _signature(secret, edit_id, ends, digest))
        return digest if right and moment < ends else None

    async def _secret_and_time(self) -> tuple[str, int]:
        time, found = await self._time_and_secret()
        if found is None:  # a Redis that is full is not written to for each token
            await self._redis.set(SECRET, secrets.token_hex(32), nx=True)
            time, found = await self._time_and_secret()
        return str(found), int(time[0])

    async def _time_and_secret(self) -> Any:
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.time()
            pipeline.get(SECRET)
            return await pipeline.execute()


def _signature(secret: str, edit_id: str, ends: int, digest: str) -> str:
    return hmac.new(secret.encode(), f"{edit_id}.{ends}.{digest}".encode(), hashlib.sha256).hexdigest()
