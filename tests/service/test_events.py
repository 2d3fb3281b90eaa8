"""One reader hands out the events of all edits: nothing is lost, nothing comes twice, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from jobs import connection
from jobs.redis_server import EmbeddedRedis
from jobs.repository import events_key, preview_key
from service import events
from service.events import MAX_PENDING, START, EventHub, Position

LAST = "199"


@asynccontextmanager
async def hub_of(url: str) -> AsyncIterator[tuple[EventHub, AsyncRedis]]:
    hub, redis = EventHub(url), AsyncRedis.from_url(url, decode_responses=True)
    try:
        yield hub, redis
    finally:
        await hub.close()
        await redis.aclose()


async def heard(hub: EventHub, edit_id: str, after: Position = START, last: str = LAST) -> list[str]:
    """The events' data, up to the last one."""
    found: list[str] = []
    with hub.listening(edit_id, after) as listener:
        while not listener.over and last not in found[-1:]:
            found += [event.data for event in await listener.news()]
            await asyncio.sleep(0)
    return found


async def tell(redis: AsyncRedis, edit_id: str, number: int) -> None:
    await redis.xadd(events_key(edit_id), {"type": "progress", "data": str(number)})


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await work()

    asyncio.run(limited())


def test_listeners_that_come_at_any_time_hear_everything_once(redis: Redis, redis_url: str) -> None:
    assert redis.dbsize() == 0
    everything = [str(number) for number in range(200)]

    async def work() -> None:
        async with hub_of(redis_url) as (hub, writer), asyncio.TaskGroup() as group:
            tasks = []
            for number in range(200):
                for edit in range(3):
                    await tell(writer, f"e{edit}", number)
                if number % 20 == 0:
                    tasks += [group.create_task(heard(hub, f"e{edit}")) for edit in range(3)]
                if number % 7 == 0:
                    await asyncio.sleep(random.Random(number).random() * 0.05)
            for task in tasks:
                assert await task == everything

    run(work)


def test_a_preview_is_read_once_for_all_who_listen(redis: Redis, redis_url: str) -> None:
    assert redis.dbsize() == 0
    reads = 0

    async def looks(hub: EventHub) -> list[str]:
        found, shown = [], []
        with hub.listening("e", START) as listener:
            while len(found) < 2:
                found += await listener.news()
            for event in found:
                shown.append(await hub.shown("e", event))
        return [event.data for event in shown if event is not None]

    async def work() -> None:
        nonlocal reads
        async with hub_of(redis_url) as (hub, writer):
            for data in ("old", "new"):
                event_id = await writer.xadd(events_key("e"), {"type": "preview", "data": "{}"})
                await writer.set(preview_key("e"), f"{event_id} {data}")
            await writer.config_resetstat()
            assert await asyncio.gather(*(looks(hub) for _ in range(50))) == [["new"]] * 50
            reads = (await writer.info("commandstats"))["cmdstat_get"]["calls"]

    run(work)
    assert reads == 2


def test_a_listener_goes_on_after_the_event_that_it_names(redis: Redis, redis_url: str) -> None:
    ids = [redis.xadd(events_key("e"), {"type": "progress", "data": str(number)}) for number in range(200)]

    async def work() -> None:
        async with hub_of(redis_url) as (hub, _):
            places = [(number, Position.of(ids[number])) for number in range(0, 199, 11)]
            found = await asyncio.gather(*(heard(hub, "e", place) for _, place in places if place))
            for (number, _), one in zip(places, found, strict=True):
                assert one == [str(later) for later in range(number + 1, 200)]

    run(work)


def test_one_that_is_slow_gets_all_in_the_end_and_holds_up_nobody(redis: Redis, redis_url: str) -> None:
    many = 3 * MAX_PENDING
    assert redis.dbsize() == 0

    async def work() -> None:
        async with hub_of(redis_url) as (hub, writer):
            with hub.listening("e", START) as slow:
                quick = asyncio.create_task(heard(hub, "e", last=str(many - 1)))
                for number in range(many):
                    await tell(writer, "e", number)
                assert len(await quick) == many
                found: list[str] = []
                while len(found) < many:
                    news = await slow.news()
                    assert len(news) <= MAX_PENDING
                    found += [event.data for event in news]
                assert found == [str(number) for number in range(many)]

    run(work)


def test_who_comes_while_the_reader_waits_is_heard_at_once(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert redis.dbsize() == 0
    monkeypatch.setattr(events, "BLOCK_S", 60)
    monkeypatch.setattr(connection, "ASYNC_TIMEOUT_S", 90)

    async def work() -> None:
        async with hub_of(redis_url) as (hub, writer):
            with hub.listening("quiet", START):
                for number in range(20):
                    await asyncio.sleep(0.01 * (number % 3))
                    await tell(writer, f"e{number}", 1)
                    assert await heard(hub, f"e{number}", last="1") == ["1"]

    run(work)


def test_an_outage_of_redis_loses_nothing(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    server.start()

    async def work() -> None:
        async with hub_of(server.url) as (hub, writer):
            listeners = [asyncio.create_task(heard(hub, "e")) for _ in range(3)]
            for number in range(200):
                await tell(writer, "e", number)
                if number in (60, 140):
                    await writer.aclose()
                    await asyncio.to_thread(server.stop)
                    await asyncio.sleep(0.2)
                    await asyncio.to_thread(server.start)
            assert await asyncio.gather(*listeners) == [[str(number) for number in range(200)]] * 3

    try:
        run(work)
    finally:
        server.stop()


def test_an_edit_that_is_gone_ends_its_listeners_and_no_other(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "BLOCK_S", 0.05)
    monkeypatch.setattr(events, "CHECK_S", 0.01)
    for edit in ("gone", "kept"):
        redis.xadd(events_key(edit), {"type": "status", "data": "{}"})

    async def work() -> None:
        async with hub_of(redis_url) as (hub, writer):
            with hub.listening("gone", START) as gone, hub.listening("kept", START) as kept:
                assert len(await gone.news()) == len(await kept.news()) == 1
                await writer.delete(events_key("gone"))
                assert await gone.news() == []
                assert (gone.over, kept.over) == (True, False)

    run(work)


def test_who_waits_when_the_process_is_to_end_is_let_go(redis: Redis, redis_url: str) -> None:
    assert redis.dbsize() == 0

    async def work() -> None:
        async with hub_of(redis_url) as (hub, _):
            with hub.listening("e", START) as before:
                hub.end_all()
                assert await before.news() == []
            with hub.listening("e", START) as later:
                assert (before.over, later.over) == (True, True)

    run(work)
