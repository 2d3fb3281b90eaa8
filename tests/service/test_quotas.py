"""Requests in a minute and open event streams of one key, over all processes."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import httpx
import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from jobs.keys import ApiKeys
from jobs.settings import Settings
from service.problems import Problem
from service.quotas import SLOT_TTL_S, Quotas, TooManyRequests
from tests.service.conftest import seen_a_moment_ago, serving
from tests.service.test_edits import submit
from tests.support import python, wait_until


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[list[str]]:
    """Two services with one Redis."""
    folder: Path = tmp_path_factory.mktemp("quotas")
    settings = Settings(
        auth="keys", data_dir=folder, redis_url=redis_url, max_requests_per_minute=30, max_streams_per_key=2
    )
    with serving(settings, redis_url) as one, serving(settings, redis_url) as other:
        yield [one, other]


@pytest.fixture
def clients(addresses: list[str], redis: Redis) -> Iterator[list[httpx.Client]]:
    """The same key at both services."""
    seen_a_moment_ago(redis)
    token, _ = ApiKeys(redis).create("test")
    headers = {"Authorization": f"Bearer {token}"}
    with ExitStack() as stack:
        yield [stack.enter_context(httpx.Client(base_url=url, timeout=20, headers=headers)) for url in addresses]


def window(redis: Redis) -> str:
    (name,) = redis.keys("foi:requests*")
    return str(name)


def grow_older(redis: Redis, seconds: float) -> None:
    """The requests so far, as if they had come earlier."""
    name = window(redis)
    for i, moment in enumerate(redis.lrange(name, 0, -1)):
        redis.lset(name, i, str(float(moment) - seconds))


def test_requests_beyond_the_limit_are_429_until_the_minute_is_over(clients: list[httpx.Client], redis: Redis) -> None:
    one, other = clients
    for _ in range(15):
        assert one.get("/v1/edits").status_code == other.get("/v1/edits").status_code == 200
    refused = other.get("/v1/edits")
    assert (refused.status_code, refused.json()["type"]) == (429, "/problems/quota-exceeded")
    assert "30 requests" in refused.json()["detail"]
    assert 50 <= int(refused.headers["retry-after"]) <= 60
    grow_older(redis, 57)
    wait = int(one.get("/v1/edits").headers["retry-after"])
    assert 1 <= wait <= 3
    time.sleep(wait)
    assert one.get("/v1/edits").status_code == 200, "Retry-After was the truth"


def test_the_minute_is_that_of_redis_whatever_clocks_the_processes_have(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    real = time.time

    async def count_requests() -> None:
        async with AsyncRedis.from_url(redis_url, decode_responses=True) as client:
            quotas = Quotas(client, Settings(max_requests_per_minute=5))
            for skew in (0, 61, -61, 3600, -3600) * 2:
                with monkeypatch.context() as patched:
                    patched.setattr(time, "time", lambda skew=skew: real() + skew)
                    try:
                        await quotas.count_request("key")
                    except TooManyRequests as refused:
                        waits.append(int(refused.response("/").headers["retry-after"]))

    assert redis.dbsize() == 0
    asyncio.run(count_requests())
    assert len(waits) == 5
    assert all(50 <= wait <= 60 for wait in waits)


def test_refused_requests_count_only_where_they_had_a_key(clients: list[httpx.Client], redis: Redis) -> None:
    client, _ = clients
    assert client.get("/v1/edits", headers={"Authorization": "Bearer nonsense"}).status_code == 401
    assert redis.keys("foi:requests*") == []
    assert client.get("/v1/edits/nope").status_code == 404
    assert redis.llen(window(redis)) == 1


def test_one_key_does_not_use_up_the_requests_of_another(clients: list[httpx.Client], redis: Redis) -> None:
    client, _ = clients
    while client.get("/v1/edits").status_code == 200:
        pass
    token, _ = ApiKeys(redis).create("other")
    assert client.get("/v1/edits", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_open_streams_are_limited_over_all_processes_and_each_that_closes_makes_room(
    clients: list[httpx.Client], redis: Redis
) -> None:
    one, other = clients
    events = submit(one).json()["urls"]["events"]
    with one.stream("GET", events) as kept:
        with other.stream("GET", events) as closing:
            assert (kept.status_code, closing.status_code) == (200, 200)
            refused = one.get(events)
            assert (refused.status_code, refused.json()["type"]) == (429, "/problems/quota-exceeded")
            assert int(refused.headers["retry-after"]) == 5
            assert one.get("/v1/edits").status_code == 200
        started = time.monotonic()
        wait_until(lambda: redis.zcard(slots(redis)) == 1, seconds=SLOT_TTL_S)
        assert time.monotonic() - started < 2, "not by running out"
        with other.stream("GET", events) as again:
            assert again.status_code == 200
    wait_until(lambda: redis.keys("foi:streams:*") == [])


def slots(redis: Redis) -> str:
    (name,) = redis.keys("foi:streams:*")
    return str(name)


def test_a_stream_that_is_refused_or_ends_by_itself_leaves_no_slot(clients: list[httpx.Client], redis: Redis) -> None:
    client, _ = clients
    for _ in range(3):
        assert client.get(f"/v1/edits/edit_{'0' * 32}/events").status_code == 404
    for _ in range(3):
        edit = submit(client).json()
        client.post(edit["urls"]["cancel"])
        assert "event: done" in client.get(edit["urls"]["events"]).text
    wait_until(lambda: redis.keys("foi:streams:*") == [])


HOLD = """
import asyncio
from redis.asyncio import Redis
from jobs.settings import Settings
from service.quotas import Quotas

async def main():
    async with Quotas(Redis.from_url({url!r}, decode_responses=True), Settings(max_streams_per_key=2)).stream("key"):
        print("held", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def test_the_slots_of_a_killed_process_are_free_within_seconds_and_no_other(redis: Redis, redis_url: str) -> None:
    assert redis.dbsize() == 0
    process = python("-c", HOLD.format(url=redis_url), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"

    async def try_until_free() -> float:
        client = AsyncRedis.from_url(redis_url, decode_responses=True)
        quotas = Quotas(client, Settings(max_streams_per_key=2))
        async with AsyncExitStack() as stack:
            stack.push_async_callback(client.aclose)
            await stack.enter_async_context(quotas.stream("key"))
            await asyncio.sleep(SLOT_TTL_S + 1)
            with pytest.raises(Problem, match="2 event streams"):
                await stack.enter_async_context(quotas.stream("key"))  # both are renewed
            process.kill()
            killed = time.monotonic()
            while time.monotonic() < killed + 2 * SLOT_TTL_S:
                try:
                    await stack.enter_async_context(quotas.stream("key"))
                except Problem:
                    await asyncio.sleep(0.1)
                else:
                    break
            freed = time.monotonic() - killed
            with pytest.raises(Problem):
                await stack.enter_async_context(quotas.stream("key"))  # ours is still held
        return freed

    assert asyncio.run(try_until_free()) <= SLOT_TTL_S + 1
    process.wait()
    process.stdout.close()
    assert redis.keys("*") == []
