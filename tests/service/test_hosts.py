"""Without keys the service is for this machine: a page on the web cannot reach it under a name of its own."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from redis import Redis

from jobs.settings import Settings
from tests.service.conftest import serving
from tests.service.test_bad_input import refused


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "[::2]", ""])
def test_another_name_is_refused(client: httpx.Client, host: str) -> None:
    refused(client.get("/v1/edits", headers={"Host": host}), 403, "forbidden")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "127.9.9.9", "[::1]:8000"])
def test_this_machines_names_are_served(client: httpx.Client, host: str) -> None:
    assert client.get("/v1/edits", headers={"Host": host}).status_code == 200


def test_who_says_that_it_is_open_may_call_it_anything(tmp_path: Path, redis: Redis, redis_url: str) -> None:
    assert redis.dbsize() == 0
    with serving(Settings(data_dir=tmp_path, auth="off"), redis_url) as url:
        assert httpx.get(f"{url}/v1/edits", headers={"Host": "edits.example.org"}).status_code == 200
