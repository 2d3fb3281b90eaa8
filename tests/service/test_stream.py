"""The event stream tells everything once, also to listeners that come late, leave, or see the service restart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Thread
from typing import Any, NamedTuple

import httpx
import pytest
from redis import Redis

from jobs.blobs import BlobStore
from jobs.keys import ApiKeys
from jobs.records import Outcome, Progress
from jobs.repository import EditRepository, Report, events_key, preview_key
from jobs.settings import Settings
from tests.service.conftest import seen_a_moment_ago, serving
from tests.service.test_bad_input import refused
from tests.service.test_edits import submit
from tests.support import FakeEngine, run_edit, wait_until


class Frame(NamedTuple):
    id: str
    event: str
    data: Any


def frames(answer: httpx.Response) -> Iterator[Frame]:
    """Server-Sent Events as the HTML standard has them, as far as they are used here."""
    found: dict[str, str] = {}
    for line in answer.iter_lines():
        if line:
            name, _, value = line.partition(":")
            found[name] = value.removeprefix(" ")
        elif "data" in found:
            yield Frame(found["id"], found["event"], json.loads(found["data"]))
            found = {}


@contextmanager
def listening(client: httpx.Client, url: str, after: str | None = None) -> Iterator[Iterator[Frame]]:
    headers = {} if after is None else {"Last-Event-ID": after}
    with client.stream("GET", url, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield frames(answer)


def everything(client: httpx.Client, url: str, after: str | None = None) -> list[Frame]:
    with listening(client, url, after) as found:
        return list(found)


def test_the_first_frame_is_the_present_state_and_the_last_is_done(
    client: httpx.Client, repository: EditRepository, served_blobs: BlobStore
) -> None:
    edit = submit(client).json()
    with listening(client, edit["urls"]["events"]) as found:
        first = next(found)
        runner = Thread(target=run_edit, args=(FakeEngine(), repository, served_blobs, edit["id"]))
        runner.start()
        rest = list(found)
        runner.join()
    assert (first.event, first.data["id"], first.data["status"]) == ("status", edit["id"], "queued")
    kinds = [frame.event for frame in rest]
    assert kinds[0] == "status"
    assert [kind for kind in kinds if kind != "progress"] == ["status", "status", "mask", "output", "done"]
    assert rest[-1].data == {"status": "succeeded"}
    assert len({frame.id for frame in rest}) == len(rest)
    output = next(frame.data for frame in rest if frame.event == "output")
    assert output == client.get(edit["urls"]["self"]).json()["outputs"][0]


def test_who_comes_after_the_end_sees_the_edit_and_done(
    client: httpx.Client, repository: EditRepository, served_blobs: BlobStore
) -> None:
    edit = submit(client).json()
    run_edit(FakeEngine(), repository, served_blobs, edit["id"])
    state, done = everything(client, edit["urls"]["events"])
    assert (state.data["status"], done.event) == ("succeeded", "done")


def test_a_listener_that_was_cut_off_anywhere_goes_on_without_loss_and_without_repetition(
    client: httpx.Client, repository: EditRepository, served_blobs: BlobStore, redis: Redis
) -> None:
    edit = submit(client).json()
    run_edit(FakeEngine(), repository, served_blobs, edit["id"])
    all_ids = [event_id for event_id, _ in redis.xrange(events_key(edit["id"]))]
    for seen in range(len(all_ids) - 1):
        rest = everything(client, edit["urls"]["events"], after=all_ids[seen])
        assert [frame.id for frame in rest] == all_ids[seen + 1 :]


def test_a_listener_outlives_a_restart_of_the_service_and_the_death_of_a_worker(
    repository: EditRepository, settings: Settings, redis: Redis, redis_url: str
) -> None:
    seen_a_moment_ago(redis)
    blobs = BlobStore(settings.data_dir / "blobs")
    with serving(settings, redis_url) as address, httpx.Client(base_url=address, timeout=20) as client:
        edit = submit(client).json()
        repository.start(edit["id"])  # by a worker that dies right after
        with listening(client, edit["urls"]["events"]) as found:
            seen = [next(found)]
    repository.release(edit["id"], None, blameless=False)
    run_edit(FakeEngine(), repository, blobs, edit["id"])
    with serving(settings, redis_url) as address, httpx.Client(base_url=address, timeout=20) as client:
        seen += everything(client, edit["urls"]["events"], after=seen[-1].id)
    stored = [event_id for event_id, _ in redis.xrange(events_key(edit["id"]))]
    assert [frame.id for frame in seen] == stored[stored.index(seen[0].id) :]
    assert [frame.data["status"] for frame in seen[1:] if frame.event == "status"] == ["queued", "running", "succeeded"]


def test_an_unknown_or_trimmed_last_id_begins_anew_with_the_present_state(client: httpx.Client, redis: Redis) -> None:
    edit = submit(client).json()
    client.post(edit["urls"]["cancel"])
    first = redis.xrange(events_key(edit["id"]))[0][0]
    redis.xtrim(events_key(edit["id"]), maxlen=1, approximate=False)
    for after in (first, "0-0", "nonsense", "99999999999999999999999999999-1"):
        assert everything(client, edit["urls"]["events"], after)[0].data["id"] == edit["id"]


def test_a_deleted_edit_ends_its_streams_with_done(client: httpx.Client) -> None:
    edit = submit(client).json()
    with listening(client, edit["urls"]["events"]) as found:
        next(found)
        client.delete(edit["urls"]["self"])
        assert list(found)[-1].event == "done"
    refused(client.get(edit["urls"]["events"]), 410, "expired")


def test_a_listener_who_leaves_leaves_nothing_behind(client: httpx.Client, redis: Redis) -> None:
    def waiting() -> int:
        # Blocked ones alone: an idle connection goes on showing the command that it had last.
        return sum(one["cmd"] == "xread" and "b" in one["flags"] for one in redis.client_list())

    edit = submit(client).json()
    with listening(client, edit["urls"]["events"]) as found:
        next(found)
        wait_until(lambda: waiting() == 1)
    wait_until(lambda: waiting() == 0)


@pytest.mark.parametrize("later", [0, 1, 10**9])
def test_who_has_heard_the_end_is_told_not_to_come_again(
    client: httpx.Client, repository: EditRepository, served_blobs: BlobStore, redis: Redis, later: int
) -> None:
    edit = submit(client).json()
    run_edit(FakeEngine(), repository, served_blobs, edit["id"])
    ms, number = redis.xrevrange(events_key(edit["id"]), count=1)[0][0].split("-")
    answer = client.get(edit["urls"]["events"], headers={"Last-Event-ID": f"{int(ms) + later}-{number}"})
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("left", [0, 1, 2])
def test_where_done_was_trimmed_a_listener_gets_another_and_comes_no_more(
    client: httpx.Client, repository: EditRepository, served_blobs: BlobStore, redis: Redis, left: int
) -> None:
    edit = submit(client).json()
    run_edit(FakeEngine(), repository, served_blobs, edit["id"])
    name = events_key(edit["id"])
    ids = [event_id for event_id, _ in redis.xrange(name)]
    redis.xdel(name, ids.pop(), *ids[: len(ids) - left])
    heard = everything(client, edit["urls"]["events"])
    assert heard[0].data["id"] == edit["id"]
    assert (heard[-1].event, heard[-1].data) == ("done", {"status": "succeeded"})
    assert client.get(edit["urls"]["events"], headers={"Last-Event-ID": heard[-1].id}).status_code == 204
    if left:
        (done,) = everything(client, edit["urls"]["events"], after=ids[-1])
        assert done.event == "done"


def test_the_end_needs_no_free_stream(redis: Redis, settings: Settings, redis_url: str) -> None:
    seen_a_moment_ago(redis)
    token, _ = ApiKeys(redis).create("mine")
    keyed = settings.model_copy(update={"auth": "keys", "max_streams_per_key": 1})
    headers = {"Authorization": f"Bearer {token}"}
    with serving(keyed, redis_url) as url, httpx.Client(base_url=url, headers=headers, timeout=20) as client:
        ended, open_one = (submit(client).json() for _ in range(2))
        client.post(ended["urls"]["cancel"])
        done = everything(client, ended["urls"]["events"])[-1]
        wait_until(lambda: redis.keys("foi:streams:*") == [])
        with listening(client, open_one["urls"]["events"]) as found:
            next(found)
            assert client.get(ended["urls"]["events"], headers={"Last-Event-ID": done.id}).status_code == 204
            refused(client.get(ended["urls"]["events"]), 429, "quota-exceeded")


def test_many_listeners_cost_redis_one_reader(client: httpx.Client, redis: Redis) -> None:
    edits = [submit(client).json() for _ in range(3)]
    with ExitStack() as stack:
        streams = [stack.enter_context(listening(client, edit["urls"]["events"])) for edit in edits for _ in range(5)]
        for found in streams:
            next(found)
        readers = {one["id"] for one in redis.client_list() if one["cmd"] == "xread"}
        assert len(readers) == 1
        for edit in edits:
            client.post(edit["urls"]["cancel"])
        assert [list(found)[-1].event for found in streams] == ["done"] * 15


def _shows(repository: EditRepository, edit_id: str, attempt: int, step: int) -> str:
    """Reports a step with a preview, and returns the preview's address."""
    url = f"data:image/jpeg;base64,{step}"
    repository.report([Report(edit_id, attempt, Progress(step=step, steps=9, stage="denoise"), url)])
    return url


def test_a_preview_is_heard_while_it_is_new_and_one_that_is_gone_is_passed_over(
    client: httpx.Client, repository: EditRepository, redis: Redis
) -> None:
    edit = submit(client).json()
    attempt = repository.start(edit["id"]) or 0
    first = redis.xrange(events_key(edit["id"]))[0][0]
    _shows(repository, edit["id"], attempt, 1)
    newest = _shows(repository, edit["id"], attempt, 2)
    assert 0 < redis.ttl(preview_key(edit["id"])) <= 60
    with listening(client, edit["urls"]["events"], after=first) as found:
        heard = [next(found) for _ in range(4)]
    assert [(frame.event, frame.data.get("url")) for frame in heard[1:]] == [
        ("progress", None),
        ("progress", None),
        ("preview", newest),
    ]


def test_a_listener_whose_last_event_was_a_preview_that_is_gone_goes_on_after_it(
    client: httpx.Client, repository: EditRepository, redis: Redis
) -> None:
    edit = submit(client).json()
    attempt = repository.start(edit["id"]) or 0
    _shows(repository, edit["id"], attempt, 1)
    seen = redis.xrevrange(events_key(edit["id"]), count=1)[0][0]
    redis.delete(preview_key(edit["id"]))
    repository.commit(edit["id"], attempt, Outcome.canceled())
    rest = everything(client, edit["urls"]["events"], after=seen)
    assert [(frame.event, frame.data) for frame in rest] == [
        ("status", {"status": "canceled"}),
        ("done", {"status": "canceled"}),
    ]


def test_a_thousand_previews_leave_no_more_in_redis_than_one(
    client: httpx.Client, repository: EditRepository, redis: Redis
) -> None:
    edit = submit(client).json()
    attempt = repository.start(edit["id"]) or 0
    large = "data:image/jpeg;base64," + "x" * 10_000
    progress = Progress(step=1, steps=9, stage="denoise")
    for _ in range(10):
        repository.report([Report(edit["id"], attempt, progress, large)] * 100)
    used = sum(redis.memory_usage(key) for key in (events_key(edit["id"]), preview_key(edit["id"])))
    assert used < 100_000


def test_a_deleted_edit_leaves_no_preview(client: httpx.Client, repository: EditRepository, redis: Redis) -> None:
    edit = submit(client).json()
    _shows(repository, edit["id"], repository.start(edit["id"]) or 0, 1)
    client.delete(edit["urls"]["self"])
    assert not redis.exists(preview_key(edit["id"]))
