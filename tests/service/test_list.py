"""Edits are listed in pages, the newest first, and deleted ones are gone."""

from __future__ import annotations

import httpx
import pytest
from redis import Redis

from jobs import pace
from jobs.blobs import BlobStore
from jobs.presence import WorkerPresence, publish
from jobs.queue import EditQueue
from jobs.repository import EditRepository
from tests.service.test_bad_input import refused
from tests.service.test_edits import submit
from tests.support import FakeEngine, encoded, picture, run_edit


def test_pages_hold_every_edit_once_and_the_newest_first(client: httpx.Client) -> None:
    submitted = [submit(client).json()["id"] for _ in range(5)]
    pages, url = [], "/v1/edits?limit=2"
    while url:
        answer = client.get(url)
        pages.append([edit["id"] for edit in answer.json()["data"]])
        assert (answer.json()["next_cursor"] is None) == ("next" not in answer.links)
        url = answer.links["next"]["url"] if "next" in answer.links else ""
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [edit_id for page in pages for edit_id in page] == submitted[::-1]


def test_an_edit_that_comes_in_between_two_pages_shifts_nothing(client: httpx.Client) -> None:
    old = [submit(client).json()["id"] for _ in range(2)]
    first = client.get("/v1/edits?limit=1").json()
    submit(client)
    second = client.get("/v1/edits", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert [first["data"][0]["id"], second["data"][0]["id"]] == old[::-1]


def test_only_the_wanted_states_are_listed(
    client: httpx.Client, repository: EditRepository, served_blobs: BlobStore
) -> None:
    done, waiting, canceled = (submit(client).json()["id"] for _ in range(3))
    run_edit(FakeEngine(), repository, served_blobs, done)
    client.post(f"/v1/edits/{canceled}/cancel")
    listed = {
        wanted: [edit["id"] for edit in client.get(f"/v1/edits?{wanted}").json()["data"]]
        for wanted in ("status=queued", "status=succeeded", "status=succeeded&status=canceled", "status=failed")
    }
    assert listed == {
        "status=queued": [waiting],
        "status=succeeded": [done],
        "status=succeeded&status=canceled": [canceled, done],
        "status=failed": [],
    }


@pytest.mark.parametrize(
    "query", ["cursor=x", "cursor=%F0%9F%98%80", "limit=0", "limit=101", "status=gone", "stauts=queued"]
)
def test_a_wrong_query_is_named(client: httpx.Client, query: str) -> None:
    refused(client.get(f"/v1/edits?{query}"), 422, "invalid-parameter")


def test_a_waiting_edit_tells_its_place_and_the_first_goes_first(client: httpx.Client) -> None:
    first, second = submit(client).json(), submit(client).json()
    urgent = submit(client, {"instruction": "make it red", "priority": "high"}).json()
    assert (first["queue_position"], second["queue_position"], urgent["queue_position"]) == (1, 2, 1)
    assert client.get(first["urls"]["self"]).json()["queue_position"] == 2, "the urgent one is before it now"
    assert first["eta_s"] is None, "no edit was done yet"


def test_what_edits_take_says_nothing_of_a_look_for_masks(client: httpx.Client, redis: Redis) -> None:
    pace.remember(redis, 60_000)
    publish(redis, WorkerPresence(name="worker-a", state="ready", model="demo"))
    edit = submit(client).json()
    look = client.post("/v1/masks", files={"image": encoded(picture())}, data={"instruction": "make it red"}).json()
    assert (edit["eta_s"], look["eta_s"]) == (60, None)
    assert look["queue_position"] == 2


def test_a_deleted_edit_is_gone_with_its_files_and_its_place(
    client: httpx.Client, repository: EditRepository, served_blobs: BlobStore, redis: Redis, queue: EditQueue
) -> None:
    done, waiting = submit(client).json(), submit(client).json()
    run_edit(FakeEngine(), repository, served_blobs, done["id"])
    result = f"{done['urls']['self']}/files/result.png"
    for edit in (done, waiting):
        answer = client.delete(edit["urls"]["self"])
        assert (answer.status_code, answer.content) == (204, b"")
        refused(client.get(edit["urls"]["self"]), 410, "expired")
        refused(client.delete(edit["urls"]["self"]), 410, "expired")
    refused(client.get(result), 410, "expired")
    assert not {done["id"], waiting["id"]} & set(served_blobs.edit_ids())
    assert client.get("/v1/edits").json()["data"] == []
    assert redis.keys("foi:edit:*") == redis.keys("foi:active:*") == []
    assert queue.length() == 0


def test_a_running_edit_is_deleted_and_its_worker_leaves_nothing(
    client: httpx.Client, repository: EditRepository, served_blobs: BlobStore
) -> None:
    edit = submit(client).json()
    run_edit(FakeEngine(lambda: client.delete(edit["urls"]["self"])), repository, served_blobs, edit["id"])
    refused(client.get(edit["urls"]["self"]), 410, "expired")
    assert edit["id"] not in served_blobs.edit_ids()
