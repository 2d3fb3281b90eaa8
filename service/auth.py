"""Who calls, and what the caller may do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from redis.asyncio import Redis

from jobs.connection import RedisError, connect_async
from jobs.keys import KEYS, ApiKey, Role, digest_of, keys_on
from jobs.repository import ALL_OWNERS
from jobs.settings import Settings
from service.problems import Problem
from service.quotas import Quotas
from service.tokens import StreamTokens

PROBLEMS = ("unauthorized", "forbidden")
"""What every route with a caller may answer."""
REVOKED_S = 0.5
"""How often the keys of those who wait are looked at, all with one command."""

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
    """`owner` is whose edits the API key sees and makes, `digest` the name under which the key is stored; both are
    empty where keys are off."""

    owner: str = ""
    admin: bool = False
    digest: str = ""

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
        self._redis = connect_async(redis_url)
        self.quotas = Quotas(self._redis, settings)
        self.revocations = Revocations(self._redis)
        self.tokens = StreamTokens(self._redis)

    async def close(self) -> None:
        await self.revocations.close()
        await self.quotas.close()
        await self._redis.aclose()

    async def admit(self, credentials: HTTPAuthorizationCredentials | None, role: Role) -> Caller:
        """Raises the Problem where the key is missing, not ours, too busy, or not for this."""
        if not self.keys_on:
            return Caller()
        if credentials is None:
            raise Unauthorized("send an API key, as the header `Authorization: Bearer foi_...`", "Bearer")
        digest = digest_of(credentials.credentials)
        key = await self._find(digest) if digest else None
        if digest is None or key is None:
            raise Unauthorized("the API key is unknown, revoked or mistyped", 'Bearer error="invalid_token"')
        return await self._admitted(digest, key, role)

    async def admit_token(self, token: str, edit_id: str) -> Caller:
        """The caller whose key made the stream token of this edit. Raises the Problem."""
        digest = await self.tokens.read(token, edit_id)
        key = await self._find(digest) if digest else None
        if digest is None or key is None:
            detail = "the stream token is expired, of another edit, or of a revoked key; make a new one"
            raise Unauthorized(detail, 'Bearer error="invalid_token"')
        return await self._admitted(digest, key, "read")

    async def _admitted(self, digest: str, key: ApiKey, role: Role) -> Caller:
        await self.quotas.count_request(key.owner)
        if not key.allows(role):
            raise Problem("forbidden", f"this needs an API key with the role '{role}'")
        return Caller(key.owner, key.admin, digest)

    async def _find(self, digest: str) -> ApiKey | None:
        """The key, unless it is unknown or revoked."""
        found: Any = await self._redis.hget(KEYS, digest)
        return _good_key(found)


class Revocations:
    """Tells those who wait for something that their key has been revoked. One command looks at all their keys."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: dict[str, list[Callable[[], None]]] = {}
        self._watch: asyncio.Task[None] | None = None

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    @contextmanager
    def watching(self, digest: str, revoked: Callable[[], None]) -> Iterator[None]:
        """`revoked` is called, perhaps more than once, if the key is revoked while the block runs."""
        self._waiting.setdefault(digest, []).append(revoked)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look_again_and_again())
        try:
            yield
        finally:
            self._waiting[digest].remove(revoked)
            if not self._waiting[digest]:
                del self._waiting[digest]

    async def _look_again_and_again(self) -> None:
        good: dict[str, Any] = {}
        while self._waiting:
            digests = list(self._waiting)
            with suppress(RedisError):  # whoever waits hears nothing more while Redis is away
                found: Any = await self._redis.hmget(KEYS, digests)
                texts = dict(zip(digests, found, strict=True))
                for digest in digests:
                    if good.get(digest) == texts[digest] is not None or _good_key(texts[digest]) is not None:
                        continue
                    for revoked in self._waiting.get(digest, ()):
                        revoked()
                good = texts
            await asyncio.sleep(REVOKED_S)


def _good_key(text: Any) -> ApiKey | None:
    key = ApiKey.model_validate_json(text) if text else None
    return key if key and key.revoked_at is None else None


async def submitter(request: Request, credentials: Credentials) -> Caller:
    """Raises the Problem where the key is missing or may not submit."""
    return await _guard(request).admit(credentials, "submit")


async def reader(request: Request, credentials: Credentials) -> Caller:
    """Raises the Problem where the key is missing or may not read."""
    return await _guard(request).admit(credentials, "read")


async def stream_reader(
    request: Request,
    edit_id: str,
    credentials: Credentials,
    token: Annotated[str | None, Query(description="A stream token of this edit, instead of the API key.")] = None,
) -> Caller:
    """Raises the Problem where both are missing, or the one that is there is not good for this edit."""
    guard = _guard(request)
    if token is not None and guard.keys_on:
        return await guard.admit_token(token, edit_id)
    return await guard.admit(credentials, "read")


Submitter = Annotated[Caller, Depends(submitter)]
Reader = Annotated[Caller, Depends(reader)]
StreamReader = Annotated[Caller, Depends(stream_reader)]


async def stream_slot(request: Request, caller: StreamReader) -> AsyncIterator[None]:
    """One of the event streams that a key may have open, until the response has ended."""
    guard = _guard(request)
    if not guard.keys_on:
        yield
        return
    async with guard.quotas.stream(caller.owner):
        yield


StreamSlot = Annotated[None, Depends(stream_slot)]


async def stream_token(request: Request, caller: Caller, edit_id: str) -> tuple[str, datetime]:
    """What opens the edit's event stream instead of the caller's key, and until when."""
    return await _guard(request).tokens.make(edit_id, caller.digest)


@contextmanager
def until_revoked(request: Request, caller: Caller, revoked: Callable[[], None]) -> Iterator[None]:
    """Calls `revoked` if the caller's key is revoked while the block runs, within a second."""
    if not caller.digest:
        yield
        return
    with _guard(request).revocations.watching(caller.digest, revoked):
        yield


def _guard(request: Request) -> Guard:
    found: Guard = request.app.state.auth
    return found
