"""The events of edits, as they come in their Redis Streams. One reader for the whole process hands them to everybody
who listens: what Redis has to do does not grow with the listeners."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from jobs.connection import RedisError, connect_async
from jobs.logs import get_logger
from jobs.repository import events_key, preview_key

BLOCK_S = 1.0
AGAIN_S = 0.5
"""How soon Redis is asked again after it did not answer."""
CHECK_S = 1.0
"""How often the reader looks whether the edits that are listened to are still there."""
BATCH = 64
"""Events of one edit that are read at once."""
MAX_PENDING = 256
"""Events that wait for one listener. One that falls further behind gets the rest from Redis again."""
PAUSE_PER_EDIT_S, MAX_PAUSE_S = 25e-6, 0.05
"""Between two reads, so that what many edits tell is read together."""

_EVENT_ID = re.compile(r"([0-9]{1,19})-([0-9]{1,19})")

log = get_logger(__name__)


class Event(NamedTuple):
    """`data` is JSON."""

    id: str
    type: str
    data: str


class Position(NamedTuple):
    """An event's id as Redis orders it: milliseconds, and a number among those of the same."""

    ms: int
    number: int

    @classmethod
    def of(cls, event_id: str) -> Position | None:
        """None for a text that is no event id."""
        match = _EVENT_ID.fullmatch(event_id)
        return cls(int(match[1]), int(match[2])) if match else None

    def __str__(self) -> str:
        return f"{self.ms}-{self.number}"


START = Position(0, 0)


class Listener:
    """What one listener has yet to hear of one edit. `over`: nothing more comes, whatever has been told."""

    def __init__(self, hub: EventHub, edit_id: str, after: Position) -> None:
        self.over = False
        self._hub, self._edit_id, self._after = hub, edit_id, after
        self._pending: deque[Event] = deque()
        self._behind = False
        self._news = asyncio.Event()

    @property
    def after(self) -> Position:
        """Of the last event that it was given."""
        return self._after

    async def news(self, seconds: float | None = None) -> list[Event]:
        """What has happened since the last call. Waits for it up to `seconds` (None: as long as it takes); empty when
        nothing came, or when it is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        found = list(self._pending)
        self._pending.clear()
        if not self.over:
            self._news.clear()
            if self._behind:
                self._behind = False
                self._hub.read_again(self._edit_id, self._after)
        return found

    def end(self) -> None:
        self.over = True
        self._pending.clear()
        self._news.set()

    def give(self, begun: Position, position: Position, event: Event) -> None:
        """An event of a read that began after `begun`. What it has had, and what comes after a gap, is left out."""
        if self.over or self._behind or not begun <= self._after < position:
            return
        if len(self._pending) == MAX_PENDING:
            self._behind = True
            return
        self._after = position
        self._pending.append(event)
        self._news.set()


class _Watched:
    """An edit that somebody listens to; `read` up to this event."""

    def __init__(self, read: Position) -> None:
        self.read = read
        self.listeners: set[Listener] = set()
        self.preview: tuple[Position, asyncio.Task[Event | None]] | None = None


class EventHub:
    """Connects lazily, and from the event loop that uses it.

    The reader blocks in one XREAD over all edits that are listened to. A stream of its own, into which it writes when
    somebody new has come, wakes it. A listener joins by moving its edit's position back to its own; those who are
    further drop what they have had.
    """

    def __init__(self, redis_url: str) -> None:
        self._redis = connect_async(redis_url)
        self._watched: dict[str, _Watched] = {}
        self._reader: asyncio.Task[None] | None = None
        self._waker: asyncio.Task[None] | None = None
        self._wake_key = f"foi:wake:{uuid.uuid4().hex}"
        self._woken = "0-0"
        self._changed = self._blocked = False
        self.closing = False
        """The process is about to end: nobody waits any more."""

    def end_all(self) -> None:
        """Everybody who listens is let go, and who comes later too."""
        self.closing = True
        for watched in self._watched.values():
            for listener in watched.listeners:
                listener.end()

    async def close(self) -> None:
        tasks = [task for task in (self._reader, self._waker) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._redis.aclose()

    async def latest(self, edit_id: str, count: int = 1) -> list[Event]:
        """The last events, the newest first."""
        return _events(await self._redis.xrevrange(events_key(edit_id), count=count))

    async def since(self, edit_id: str, after: Position) -> list[Event]:
        """All events after `after` that are still there, the oldest first."""
        return _events(await self._redis.xrange(events_key(edit_id), f"({after}"))

    async def shown(self, edit_id: str, event: Event) -> Event | None:
        """The event with its data. None for a preview that a later one has replaced, or that is too old. Redis is asked
        once for all who listen."""
        if event.type != "preview" or event.data != "{}":
            return event
        watched, position = self._watched.get(edit_id), Position.of(event.id) or START
        if watched is None:
            return await self._preview(edit_id, event)
        if watched.preview is None or watched.preview[0] < position:
            watched.preview = position, asyncio.create_task(self._preview(edit_id, event))
        elif position < watched.preview[0]:
            return None
        return await asyncio.shield(watched.preview[1])

    async def _preview(self, edit_id: str, event: Event) -> Event | None:
        try:
            kept: Any = await self._redis.get(preview_key(edit_id))
        except RedisError:
            return None  # a stream need not end for the want of a preview
        event_id, _, data = str(kept or "").partition(" ")
        return event._replace(data=data) if event_id == event.id else None

    async def knows(self, edit_id: str, position: Position) -> bool:
        """Whether the event is still there."""
        return bool(await self._redis.xrange(events_key(edit_id), str(position), str(position)))

    @contextmanager
    def listening(self, edit_id: str, after: Position) -> Iterator[Listener]:
        """Hears every event after `after`, each once, while the block runs; also over outages of Redis."""
        listener = Listener(self, edit_id, after)
        watched = self._watched.setdefault(edit_id, _Watched(after))
        watched.listeners.add(listener)
        self.read_again(edit_id, after)
        if self.closing:
            listener.end()
        try:
            yield listener
        finally:
            watched.listeners.discard(listener)
            if not watched.listeners:
                del self._watched[edit_id]

    def read_again(self, edit_id: str, after: Position) -> None:
        """The reader begins anew after this event."""
        watched = self._watched[edit_id]
        watched.read = min(watched.read, after)
        self._wake()

    def _wake(self) -> None:
        self._changed = True
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        elif self._blocked and (self._waker is None or self._waker.done()):
            self._waker = asyncio.create_task(self._interrupt())

    async def _interrupt(self) -> None:
        """Again and again until the reader has seen the change: it may just have begun to read."""
        while self._changed:
            with suppress(RedisError):
                async with self._redis.pipeline(transaction=False) as pipeline:
                    pipeline.xadd(self._wake_key, {"": ""}, maxlen=1, approximate=False)
                    pipeline.expire(self._wake_key, 60)
                    await pipeline.execute()
            await asyncio.sleep(MAX_PAUSE_S)

    async def _read(self) -> None:
        """Until nobody listens, which it sees after BLOCK_S at the latest."""
        checked = asyncio.get_running_loop().time()
        away = False
        try:
            while self._watched:
                self._changed = False
                begun = {edit_id: watched.read for edit_id, watched in self._watched.items()}
                try:
                    found = await self._news(begun)
                    if (now := asyncio.get_running_loop().time()) - checked >= CHECK_S:
                        checked = now
                        await self._let_go_of_what_is_gone(list(begun))
                except RedisError as error:
                    if not away:
                        log.warning("no events: redis does not answer", reason=str(error))
                    away = True
                    await asyncio.sleep(AGAIN_S)
                    continue
                away = False
                if found:
                    self._hand_out(begun, found)
                    await asyncio.sleep(min(MAX_PAUSE_S, PAUSE_PER_EDIT_S * len(begun)))
        except Exception:
            log.exception("the reader of events failed")
            for watched in self._watched.values():
                for listener in watched.listeners:
                    listener.end()  # their callers come again, and start another
        finally:
            self._changed = False

    async def _news(self, begun: dict[str, Position]) -> list[tuple[str, list[Event]]]:
        """Events by edit, as soon as there are some, somebody new listens, or after BLOCK_S."""
        streams: Any = {self._wake_key: self._woken}
        streams |= {events_key(edit_id): str(position) for edit_id, position in begun.items()}
        self._blocked = True
        try:
            answer: Any = await self._redis.xread(streams, count=BATCH, block=round(BLOCK_S * 1000))
        finally:
            self._blocked = False
        found = dict(answer or ())
        if woken := found.pop(self._wake_key, None):
            self._woken = woken[-1][0]
        return [(key.removeprefix(events_key("")), _events(entries)) for key, entries in found.items()]

    def _hand_out(self, begun: dict[str, Position], found: list[tuple[str, list[Event]]]) -> None:
        for edit_id, events in found:
            watched = self._watched.get(edit_id)
            if watched is None:
                continue
            position = begun[edit_id]
            for event in events:
                position = Position.of(event.id) or position
                for listener in watched.listeners:
                    listener.give(begun[edit_id], position, event)
            if watched.read == begun[edit_id]:  # else somebody has joined further back meanwhile
                watched.read = position

    async def _let_go_of_what_is_gone(self, edit_ids: list[str]) -> None:
        """Edits whose retention is over: no event will tell it."""
        keys = [events_key(edit_id) for edit_id in edit_ids]
        if await self._redis.exists(*keys) == len(keys):
            return
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.exists(key)
            there = await pipeline.execute()
        for edit_id, exists in zip(edit_ids, there, strict=True):
            if not exists and edit_id in self._watched:
                for listener in self._watched[edit_id].listeners:
                    listener.end()


def _events(entries: Any) -> list[Event]:
    return [Event(event_id, fields["type"], fields["data"]) for event_id, fields in entries]
