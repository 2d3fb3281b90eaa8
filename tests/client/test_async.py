"""The asynchronous client: the same flows, and what only it can get wrong."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from foi_client import ApiError, AsyncClient, Client, DoneEvent, Event, UnreachableError, WaitTimeout
from jobs.repository import events_key
from tests.client.conftest import Editing
from tests.client.relay import Cut, Relay
from tests.support import encoded, picture, wait_until

PNG = encoded(picture())


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(url, timeout=20, retry_for=20) as client:
        yield client


def test_it_has_the_methods_of_the_other_one_with_the_same_parameters() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") and not name.endswith("close")
        }

    assert methods(AsyncClient) == methods(Client)


def test_every_call_once(address: str, editing: Editing, tmp_path: Path) -> None:
    async def calls() -> None:
        async with client_of(address) as client:
            source = tmp_path / "ü.png"
            source.write_bytes(PNG)
            edit = await client.edit(source, "make the ball red", seed=7)
            looked = await client.masks(PNG, "make the ball red", seed=7)
            assert (edit.status, len(looked.masks)) == ("succeeded", 1)
            files = await client.download(edit, tmp_path / "out")
            assert files.outputs[0].read_bytes() == await client.fetch(edit.outputs[0])
            assert (await client.info()).limits["outputs"] == 8
            assert await client.deliveries(edit) == ()
            with pytest.raises(ApiError, match="without a webhook_url"):
                await client.redeliver(edit)
            assert (await client.cancel(edit)).status == "succeeded"
            assert [found.id async for found in client.list("succeeded")] == [looked.id, edit.id]
            await client.delete(edit)
            with pytest.raises(ApiError, match="410"):
                await client.get(edit)

    with editing():
        asyncio.run(calls())


def test_many_edits_at_once(address: str, editing: Editing) -> None:
    told: list[Event] = []

    async def on_event(event: Event) -> None:
        await asyncio.sleep(0)
        told.append(event)

    async def edits() -> list[str]:
        async with client_of(address) as client:
            calls = [client.edit(PNG, "make the ball red", seed=seed, on_event=on_event) for seed in range(8)]
            return [edit.status for edit in await asyncio.gather(*calls)]

    with editing():
        assert asyncio.run(edits()) == ["succeeded"] * 8
    assert sum(isinstance(event, DoneEvent) for event in told) == 8


def test_broken_connections_lose_nothing(relay: Relay, redis: Redis, run: Callable[..., None]) -> None:
    async def listen() -> tuple[str, list[str]]:
        async with client_of(relay.url) as client:
            relay.faults += [Cut()]
            edit = await client.submit(PNG, "make the ball red")
            async with aclosing(client.stream(edit)) as events:
                seen = [(await anext(events)).id]
                relay.cut_all()
                await asyncio.to_thread(run, edit.id)
                relay.faults += [Cut(after) for after in range(250, 700, 50)]
                return edit.id, seen + [event.id async for event in events]

    edit_id, seen = asyncio.run(listen())
    stored = [event_id for event_id, _ in redis.xrange(events_key(edit_id))]
    assert seen == stored[stored.index(seen[0]) :]
    assert len(redis.keys("foi:edit:*")) == 1


def test_a_limit_and_a_service_that_is_not_there(relay: Relay) -> None:
    async def calls() -> None:
        async with client_of(relay.url) as client:
            edit = await client.submit(PNG, "make the ball red")
            with pytest.raises(WaitTimeout):
                await client.wait(edit, timeout=0.3)
        relay.target = None
        async with AsyncClient(relay.url, retry_for=0.2) as client:
            with pytest.raises(UnreachableError):
                await client.info()

    asyncio.run(calls())


@pytest.mark.parametrize("call", ["wait", "stream", "left"])
def test_who_is_canceled_leaves_no_open_connection(relay: Relay, call: str) -> None:
    async def listen(client: AsyncClient, edit_id: str) -> None:
        async for _ in client.stream(edit_id):
            pass

    async def leave(client: AsyncClient, edit_id: str) -> None:
        async with aclosing(client.stream(edit_id)) as events:
            await anext(events)

    async def main() -> None:
        async with client_of(relay.url) as client:
            edit = await client.submit(PNG, "make the ball red")
            calls: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
                "wait": lambda: client.wait(edit),
                "stream": lambda: listen(client, edit.id),
                "left": lambda: leave(client, edit.id),
            }
            task = asyncio.create_task(calls[call]())
            await asyncio.to_thread(wait_until, lambda: any(line.endswith("/events") for line in relay.requests))
            if call == "left":
                await task
            else:
                await asyncio.sleep(0.1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await asyncio.to_thread(wait_until, lambda: not relay.open)
            assert (await client.info()).version, "the client itself is still good"

    asyncio.run(main())
