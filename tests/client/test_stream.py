"""Whatever happens to the connection, every event comes once."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from foi_client import (
    ApiError,
    Client,
    DoneEvent,
    Event,
    MaskEvent,
    OutputEvent,
    PreviewEvent,
    ProgressEvent,
    StatusEvent,
    WaitTimeout,
)
from jobs.blobs import BlobStore
from jobs.keys import ApiKeys
from jobs.repository import EditRepository, events_key
from jobs.settings import Settings
from tests.client.relay import Answer, Cut, Relay, relaying
from tests.service.conftest import seen_a_moment_ago, serving
from tests.support import FakeEngine, encoded, later, picture, run_edit, wait_until

PNG = encoded(picture())


def stored_ids(redis: Redis, edit_id: str) -> list[str]:
    return [event_id for event_id, _ in redis.xrange(events_key(edit_id))]


def test_events_have_their_types(client: Client, run: Callable[..., None]) -> None:
    edit = client.submit(PNG, "make the ball red", previews=True, metadata={"odd": "a\u2028b\x85c"})
    events = client.stream(edit)
    first = next(events)
    assert isinstance(first, StatusEvent)
    assert first.edit is not None
    assert (first.edit.id, first.edit.metadata) == (edit.id, {"odd": "a\u2028b\x85c"})
    run(edit.id)
    rest = list(events)
    kinds = list(dict.fromkeys(type(event) for event in rest if not isinstance(event, ProgressEvent | PreviewEvent)))
    assert kinds == [StatusEvent, MaskEvent, OutputEvent, DoneEvent]
    assert [event.status for event in rest if isinstance(event, StatusEvent)] == ["running", "succeeded"]
    assert isinstance(rest[-1], DoneEvent)
    assert rest[-1].status == "succeeded"
    ended = client.get(edit)
    assert [event.output for event in rest if isinstance(event, OutputEvent)] == list(ended.outputs)
    assert [event.mask for event in rest if isinstance(event, MaskEvent)] == list(ended.masks)
    previews = [event.image for event in rest if isinstance(event, PreviewEvent)]
    assert all(image.startswith(b"\xff\xd8") for image in previews)


def test_a_kind_of_event_that_this_client_does_not_know_is_passed_on(client: Client, redis: Redis) -> None:
    edit = client.submit(PNG, "make the ball red")
    events = client.stream(edit)
    next(events)
    redis.xadd(events_key(edit.id), {"type": "colour", "data": '{"hex": "#fff"}'})
    strange = next(events)
    assert (type(strange), strange.type, strange.raw) == (Event, "colour", {"hex": "#fff"})
    events.close()


def test_a_connection_that_breaks_after_any_byte_loses_and_doubles_nothing(
    far_client: Client, relay: Relay, redis: Redis, run: Callable[..., None]
) -> None:
    edit = far_client.submit(PNG, "make the ball red")
    events = far_client.stream(edit)
    seen = [next(events).id]
    relay.cut_all()
    run(edit.id)
    relay.faults += [Cut(after) for after in range(250, 700, 17)]
    seen += [event.id for event in events]
    stored = stored_ids(redis, edit.id)
    assert seen == stored[stored.index(seen[0]) :]
    assert len([line for line in relay.requests if line.endswith("/events")]) > 5


def test_the_service_is_restarted_while_somebody_listens(
    repository: EditRepository, settings: Settings, redis: Redis, redis_url: str
) -> None:
    seen_a_moment_ago(redis)
    seen: list[Event] = []
    with ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        relay = stack.enter_context(relaying(first.enter_context(serving(settings, redis_url))))
        client = stack.enter_context(Client(relay.url, timeout=20, retry_for=60))
        edit = client.submit(PNG, "make the ball red")
        listener = stack.enter_context(ThreadPoolExecutor(1))
        heard = listener.submit(lambda: [seen.append(event) for event in client.stream(edit)])
        wait_until(lambda: seen)
        relay.target = None
        relay.cut_all()
        first.close()
        run_edit(FakeEngine(), repository, BlobStore(settings.data_dir / "blobs"), edit.id)
        tries = len(relay.requests)
        wait_until(lambda: len(relay.requests) > tries)
        relay.target = stack.enter_context(serving(settings, redis_url))
        heard.result(60)
    stored = stored_ids(redis, edit.id)
    assert [event.id for event in seen] == stored[stored.index(seen[0].id) :]
    assert isinstance(seen[-1], DoneEvent)


def test_an_edit_that_is_deleted_or_unknown_ends_the_stream(client: Client) -> None:
    edit = client.submit(PNG, "make the ball red")
    events = client.stream(edit)
    next(events)
    client.delete(edit)
    assert isinstance(list(events)[-1], DoneEvent)
    with pytest.raises(ApiError) as caught:
        next(client.stream(edit))
    assert caught.value.kind == "expired"


def test_a_limit_holds_while_events_come(client: Client, repository: EditRepository) -> None:
    edit = client.submit(PNG, "make the ball red")
    events: list[Event] = []

    def change(event: Event) -> None:
        events.append(event)
        if len(events) < 100:
            repository.start(edit.id)
            repository.release(edit.id, None, blameless=True)

    with pytest.raises(WaitTimeout):
        client.wait(edit, timeout=1, on_event=change)
    assert len(events) > 1


@pytest.fixture
def one_stream(tmp_path: Path, redis: Redis, redis_url: str) -> Iterator[tuple[Client, BlobStore]]:
    """A client whose key may have one event stream."""
    settings = Settings(auth="keys", data_dir=tmp_path, redis_url=redis_url, max_streams_per_key=1)
    seen_a_moment_ago(redis)
    token, _ = ApiKeys(redis).create("test")
    with serving(settings, redis_url) as url, Client(url, token, timeout=20, retry_for=30) as client:
        yield client, BlobStore(tmp_path / "blobs")


def test_who_has_no_stream_left_waits_by_polling(
    one_stream: tuple[Client, BlobStore], repository: EditRepository
) -> None:
    client, blobs = one_stream
    busy, edit = (client.submit(PNG, "make the ball red") for _ in range(2))
    held = client.stream(busy)
    next(held)
    events: list[Any] = []
    with later(0.3, run_edit, FakeEngine(), repository, blobs, edit.id):
        assert client.wait(edit, timeout=30, on_event=events.append).status == "succeeded"
    assert {event.id for event in events} == {""}
    assert [event.type for event in events if event.type not in ("progress", "status")] == ["mask", "output", "done"]
    assert [event.status for event in events if event.type == "status"][-1] == "succeeded"
    held.close()


def test_who_wants_the_stream_itself_waits_for_room(
    one_stream: tuple[Client, BlobStore], caplog: pytest.LogCaptureFixture
) -> None:
    client, _ = one_stream
    edit = client.submit(PNG, "make the ball red")
    client.cancel(edit)
    other = client.submit(PNG, "make the ball red")
    held = client.stream(other)
    next(held)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: [event.type for event in client.stream(edit)])
        wait_until(lambda: "trying again" in caplog.text)
        held.close()
        assert waiting.result(30) == ["status", "done"]


def test_a_preview_is_a_picture(far_client: Client, relay: Relay) -> None:
    url = "data:image/jpeg;base64," + base64.b64encode(b"jpeg").decode()
    frames = f'event: preview\ndata: {{"url": "{url}"}}\n\nevent: done\ndata: {{"status": "failed"}}\n\n'
    relay.faults.append(Answer(200, frames.encode(), {"Content-Type": "text/event-stream"}))
    preview, done = far_client.stream("edit_1")
    assert isinstance(preview, PreviewEvent)
    assert (preview.image, done.type) == (b"jpeg", "done")
