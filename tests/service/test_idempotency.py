"""The same request sent twice makes one edit."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from redis import Redis

from service.accept import MAX_IDEMPOTENCY_KEY
from tests.service.test_bad_input import refused
from tests.service.test_edits import ONE, submit
from tests.support import encoded, picture, wait_until

KEY = {"Idempotency-Key": "order-7"}


def send(client: httpx.Client, picture_bytes: bytes = encoded(picture()), path: str = "/v1/edits") -> httpx.Response:
    return client.post(path, files={"image": picture_bytes}, data=ONE, headers=KEY)


def test_fifty_racing_submits_make_one_edit(address: str, client: httpx.Client, redis: Redis) -> None:
    def race(_: int) -> httpx.Response:
        with httpx.Client(base_url=address, timeout=20) as own:
            return send(own)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(race, range(50)))
    ends = Counter(answer.status_code for answer in answers)
    assert ends.keys() <= {202, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 202}) == 1
    assert sum("idempotent-replayed" not in a.headers for a in answers if a.status_code == 202) == 1
    assert all(a.headers["retry-after"] == "1" for a in answers if a.status_code == 409)
    assert len(redis.keys("foi:edit:*")) == 1
    assert send(client).headers["idempotent-replayed"] == "true"


def test_one_changed_pixel_is_another_request(client: httpx.Client) -> None:
    send(client)
    other = picture()
    other.putpixel((0, 0), (1, 2, 3))
    refused(send(client, encoded(other)), 422, "idempotency-mismatch")
    refused(send(client, path="/v1/masks"), 422, "idempotency-mismatch")


def test_a_refused_request_leaves_its_key_free(client: httpx.Client) -> None:
    refused(send(client, b"no picture"), 415, "unsupported-image")
    assert send(client).status_code == 202


def test_a_request_that_died_on_its_way_frees_its_key_after_a_while(client: httpx.Client, redis: Redis) -> None:
    first = send(client).json()
    (key,) = redis.keys("foi:idempotency:*")
    redis.delete(f"foi:tombstone:{first['id']}")  # as if its edit had never been made
    refused(send(client), 409, "idempotency-in-flight")
    redis.pexpire(key, 1)
    wait_until(lambda: send(client).status_code == 202)


def test_the_key_is_kept_for_a_day(client: httpx.Client, redis: Redis) -> None:
    send(client)
    (key,) = redis.keys("foi:idempotency:*")
    assert 86_000 < redis.ttl(key) <= 86_400


def test_the_answer_for_an_edit_that_was_deleted_since_is_that_it_is_gone(client: httpx.Client) -> None:
    client.delete(send(client).json()["urls"]["self"])
    refused(send(client), 410, "expired")


@pytest.mark.parametrize("key", ["", "x" * (MAX_IDEMPOTENCY_KEY + 1)])
def test_a_key_of_a_wrong_length_is_refused(client: httpx.Client, key: str) -> None:
    refused(submit(client, **{"Idempotency-Key": key}), 422, "invalid-parameter")
