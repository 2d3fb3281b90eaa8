"""Who calls, and what the caller may do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from jobs.connection import QUICK_RETRIES
from jobs.keys import KEYS, ApiKey, Role, digest_of, keys_on
from jobs.repository import ALL_OWNERS
from jobs.settings import Settings
from service.problems import Problem
from service.quotas import Quotas

PROBLEMS = ("unauthorized", "forbidden")
"""What every route with a caller may answer."""
CONNECTIONS = 32
"""To Redis, for all callers together; each is needed for a moment only."""
TIMEOUT_S = 10

_BEARER = HTTPBearer(scheme_name="ApiKey", description="`python -m jobs.keys create NAME` makes one.", auto_error=False)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]


class Unauthorized(Problem):
    """401 with its challenge (RFC 6750, section 3)."""

    def __init__(self, detail: str, challenge: str) -> None:
        super().__init__("unauthorized", detail)
        self._challenge = challenge

    def response(self, instance: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return super().response(instance, {**(headers or {}), "WWW-Authenticate": self._challenge})


@dataclass(frozen=True)
class Caller:
    """`owner` is whose edits the API key sees and makes; empty where keys are off."""

    owner: str = ""
    admin: bool = False

    @property
    def lists(self) -> str:
        """Whose edits a list shows."""
        return ALL_OWNERS if self.admin else self.owner

    def may_see(self, owner: str) -> bool:
        return self.admin or owner == self.owner


class Guard:
    """Connects lazily, and from the event loop that uses it. Remembers no key: one that is revoked is so at once."""

    def __init__(self, settings: Settings, redis_url: str) -> None:
        """Raises AuthUndecidedError."""
        self.keys_on = keys_on(settings)
        pool = BlockingConnectionPool.from_url(
            redis_url,
            max_connections=CONNECTIONS,
            timeout=TIMEOUT_S,
            socket_timeout=TIMEOUT_S,
            retry=Retry(ExponentialBackoff(cap=0.2, base=0.1), QUICK_RETRIES),
            decode_responses=True,
        )
        self._redis = Redis.from_pool(pool)
        self.quotas = Quotas(self._redis, settings)

    async def close(self) -> None:
        await self._redis.aclose()

    async def admit(self, credentials: HTTPAuthorizationCredentials | None, role: Role) -> Caller:
        """Raises the Problem where the key is missing, not ours, too busy, or not for this."""
        if not self.keys_on:
            return Caller()
        if credentials is None:
            raise Unauthorized("send an API key, as the header `Authorization: Bearer foi_...`", "Bearer")
        key = await self.find(credentials)
        if key is None:
            raise Unauthorized("the API key is unknown, revoked or mistyped", 'Bearer error="invalid_token"')
        await self.quotas.count_request(key.owner)
        if not key.allows(role):
            raise Problem("forbidden", f"this needs an API key with the role '{role}'")
        return Caller(key.owner, key.admin)

    async def find(self, credentials: HTTPAuthorizationCredentials) -> ApiKey | None:
        """The key, unless it is unknown or revoked."""
        digest = digest_of(credentials.credentials)
        if digest is None:
            return None
        found: Any = await self._redis.hget(KEYS, digest)
        key = ApiKey.model_validate_json(found) if found else None
        return key if key and key.revoked_at is None else None


async def submitter(request: Request, credentials: Credentials) -> Caller:
    """Raises the Problem where the key is missing or may not submit."""
    return await _guard(request).admit(credentials, "submit")


async def reader(request: Request, credentials: Credentials) -> Caller:
    """Raises the Problem where the key is missing or may not read."""
    return await _guard(request).admit(credentials, "read")


Submitter = Annotated[Caller, Depends(submitter)]
Reader = Annotated[Caller, Depends(reader)]


async def stream_slot(request: Request, caller: Reader) -> AsyncIterator[None]:
    """One of the event streams that a key may have open, until the response has ended."""
    guard = _guard(request)
    if not guard.keys_on:
        yield
        return
    async with guard.quotas.stream(caller.owner):
        yield


StreamSlot = Annotated[None, Depends(stream_slot)]


async def still_valid(request: Request) -> bool:
    """Whether the caller's key has not been revoked since."""
    guard, credentials = _guard(request), await _BEARER(request)
    return not guard.keys_on or (credentials is not None and await guard.find(credentials) is not None)


def _guard(request: Request) -> Guard:
    found: Guard = request.app.state.auth
    return found
