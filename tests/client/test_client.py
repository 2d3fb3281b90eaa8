"""The client against the real service."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import pickle
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image
from redis import Redis

from foi_client import (
    ApiError,
    Client,
    DownloadError,
    Edit,
    EditCanceled,
    EditFailed,
    Event,
    Fields,
    NotEndedError,
    ProgressEvent,
    SubInstruction,
    WaitTimeout,
    models,
)
from foi_client.reading import read_edit
from jobs import views
from jobs.queue import EditQueue
from jobs.records import Webhook
from jobs.repository import EditRepository
from service.deliveries import DeliveryView
from service.fields import SCALARS
from service.info import Info as ServiceInfo
from tests.client.conftest import Editing
from tests.client.relay import Answer, Change, Relay
from tests.support import FakeEngine, encoded, picture, submission, wait_until

PNG = encoded(picture())


def test_an_edit_is_one_call_and_its_files_another(client: Client, editing: Editing, tmp_path: Path) -> None:
    source = tmp_path / 'Bär "1" 🐻.png'
    source.write_bytes(PNG)
    with editing():
        edit = client.edit(source, "make the ball red", seed=7)
    assert (edit.status, edit.ended, edit.input.seed) == ("succeeded", True, 7)
    (output,), (mask,) = edit.outputs, edit.masks
    assert (output.name, output.width, output.height, output.seed) == ("result.png", 48, 32, 7)
    assert (mask.name, mask.area, mask.keyword, mask.instruction) == ("mask-1.png", 0.5, "ball", 0)
    assert isinstance(edit.completed_at, datetime)
    assert edit.created_at <= edit.completed_at
    assert edit.metrics is not None
    assert edit.metrics.change_outside_mask == 0
    assert [warning.code for warning in edit.warnings] == ["text-cut"]
    folder = tmp_path / "neu" / "für dich"
    files = client.download(edit, folder)
    assert (files.outputs, files.masks) == ((folder / "result.png",), (folder / "mask-1.png",))
    assert hashlib.sha256(files.outputs[0].read_bytes()).hexdigest() == output.sha256
    assert Image.open(io.BytesIO(files.masks[0].read_bytes())).size == (48, 32)
    assert sorted(path.name for path in folder.iterdir()) == ["mask-1.png", "result.png"]


def test_every_field_of_the_service_has_its_type_here(client: Client) -> None:
    assert Fields.__annotations__.keys() == SCALARS.keys()
    edit = client.submit(
        PNG,
        [SubInstruction("make the hat black", "hat", 1.5), "turn the sky red and blue"],
        num_inference_steps=12,
        strength=0.5,
        guidance_scale=7,
        image_guidance_scale=1.25,
        seed=1,
        threshold=(0.25, 0.5),
        method="foi",
        preset="paper",
        mask_at=0.1,
        modulation_end=0.5,
        disentangle_end=1,
        preserve_outside_mask=False,
        n=2,
        output_size="model",
        output_format="webp",
        priority="high",
        deadline_s=60,
        previews=True,
        webhook_url="https://93.184.216.34/hook",
        webhook_events=["edit.failed", "edit.canceled"],
        metadata={"order": "Größe\u2028"},
    )
    asked = edit.input
    assert (asked.num_inference_steps, asked.strength, asked.guidance_scale) == (12, 0.5, 7)
    assert (asked.threshold, asked.preset, asked.preserve_outside_mask) == ((0.25, 0.5), "paper", False)
    assert (asked.n, asked.output_size, asked.output_format, edit.priority) == (2, "model", "webp", "high")
    assert [(part.text, part.keyword, part.intensity) for part in asked.instructions] == [
        ("make the hat black", "hat", 1.5),
        ("turn the sky red and blue", None, 1),
    ]
    assert edit.deadline_at is not None
    assert edit.metadata == {"order": "Größe\u2028"}


def test_what_a_newer_service_adds_is_read_and_stands_in_raw(client: Client, relay: Relay) -> None:
    edit = client.submit(PNG, "make the ball red")
    newer = {**client.get(edit).raw, "colour": "new", "status": "pondering"}
    relay.faults.append(Answer(200, json.dumps(newer).encode(), {"Content-Type": "application/json"}))
    with Client(relay.url) as far:
        found = far.get(edit.id)
    assert (found.id, found.status, found.raw["colour"], found.ended) == (edit.id, "pondering", "new", False)


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "file", "pillow"])
def test_a_picture_may_come_in_any_shape(client: Client, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(PNG)
    sources = {"path": path, "text": str(path), "bytes": PNG, "file": io.BytesIO(PNG), "pillow": picture()}
    edit = client.submit(sources[kind], "make the ball red")  # type: ignore[arg-type]
    assert (edit.input.width, edit.input.height) == (48, 32)


def test_a_picture_that_cannot_be_read_is_said_before_anything_is_sent(client: Client, redis: Redis) -> None:
    with pytest.raises(FileNotFoundError):
        client.submit("no/such.png", "make the ball red")
    with pytest.raises(TypeError, match="'rb'"):
        client.submit(io.StringIO("text"), "make the ball red")  # type: ignore[arg-type]
    assert redis.keys("foi:edit:*") == []


def test_one_text_is_split_and_a_list_is_not(client: Client) -> None:
    text = "make the ball red and turn the sky orange"
    assert len(client.submit(PNG, text).input.instructions) == 2
    assert len(client.submit(PNG, [text]).input.instructions) == 1
    assert len(client.submit(PNG, SubInstruction(text)).input.instructions) == 1


def test_masks_come_first_and_go_back_with_the_edit(client: Client, editing: Editing) -> None:
    with editing():
        looked = client.masks(PNG, "make the ball red", seed=7)
        mask = client.fetch(looked.masks[0])
        parts = ["remove it", SubInstruction("make the ball red", mask=Image.open(io.BytesIO(mask)))]
        edit = client.edit(PNG, parts, seed=7)
    assert (looked.outputs, len(looked.masks), len(looked.attention_maps)) == ((), 1, 1)
    assert [part.has_mask for part in edit.input.instructions] == [False, True]


def test_what_the_service_refuses_names_the_fields(client: Client) -> None:
    with pytest.raises(ApiError) as caught:
        client.submit(PNG, "make the ball red", strength=2, sede=3)  # type: ignore[call-arg]
    error = caught.value
    assert (error.status, error.kind, error.title) == (422, "invalid-parameter", "A field is not allowed")
    assert {entry.pointer for entry in error.errors} == {"/strength", "/sede"}
    assert "strength" in error.errors[0].detail + error.errors[1].detail
    assert error.request_id
    assert str(error) == f"422 A field is not allowed: {error.detail}"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_an_edit_that_fails_raises_with_its_reason(client: Client, editing: Editing) -> None:
    def explode() -> None:
        raise RuntimeError

    with editing(FakeEngine(explode)), pytest.raises(EditFailed, match=r"edit_.*: ") as caught:
        client.edit(PNG, "make the ball red")
    assert caught.value.edit.error is not None
    assert caught.value.edit.error.kind == "internal"
    assert client.wait(caught.value.edit).status == "failed", "waiting does not raise"


def test_an_edit_that_is_canceled_raises_another(client: Client) -> None:
    def cancel(_: object) -> None:
        (edit,) = client.list()
        client.cancel(edit)

    with pytest.raises(EditCanceled, match="was canceled"):
        client.edit(PNG, "make the ball red", on_event=cancel)


def test_who_waits_for_too_long_hears_so_and_the_edit_goes_on(client: Client, run: Callable[..., None]) -> None:
    edit = client.submit(PNG, "make the ball red")
    with pytest.raises(WaitTimeout, match="goes on") as caught:
        client.wait(edit, timeout=0.5)
    assert caught.value.edit_id == edit.id
    with pytest.raises(NotEndedError, match="is queued"):
        client.download(edit, "nowhere")
    run(edit.id)
    assert client.wait(edit.id, timeout=20).status == "succeeded"


def test_events_are_told_while_one_waits(client: Client, run: Callable[..., None]) -> None:
    told: list[Event] = []
    done = count()

    def steps() -> list[int]:
        return [event.progress.step for event in told if isinstance(event, ProgressEvent)]

    def until_told() -> None:
        step = next(done)
        wait_until(lambda: step in steps())

    edit = client.submit(PNG, "make the ball red")
    runner = Thread(target=run, args=(edit.id, FakeEngine(until_told)))

    def on_event(event: Event) -> None:
        if not told:
            runner.start()
        told.append(event)

    assert client.wait(edit, on_event=on_event).status == "succeeded"
    runner.join()
    assert steps() == sorted(steps())
    assert {0, 1, 2} <= set(steps())


def test_a_list_goes_on_over_all_pages(client: Client, repository: EditRepository) -> None:
    new = [submission() for _ in range(205)]
    for one in new:
        repository.create(one)
    client.cancel(new[3].id)
    assert [edit.id for edit in client.list()] == [one.id for one in reversed(new)]
    assert [edit.id for edit in client.list("canceled", "failed")] == [new[3].id]
    assert next(iter(client.list())).id == new[-1].id


def test_cancel_and_delete(client: Client, queue: EditQueue) -> None:
    edit = client.submit(PNG, "make the ball red")
    assert client.cancel(edit).status == client.cancel(edit.id).status == "canceled"
    assert queue.length() == 0
    client.delete(edit)
    with pytest.raises(ApiError) as caught:
        client.delete(edit)
    assert (caught.value.status, caught.value.kind) == (410, "expired")
    for unknown in ("edit_" + "0" * 32, "../info", "a/b"):
        with pytest.raises(ApiError, match="404"):
            client.get(unknown)


def test_deliveries_are_seen_and_sent_again(client: Client, repository: EditRepository) -> None:
    webhook = Webhook(url="https://receiver.example/hook", events=("edit.canceled",))
    new = submission().model_copy(update={"webhook": webhook})
    repository.create(new)
    assert client.deliveries(new.id) == ()
    client.cancel(new.id)
    (delivery,) = client.redeliver(new.id)
    assert (delivery.url, delivery.state, delivery.attempts) == (webhook.url, "pending", ())
    assert client.deliveries(new.id) == (delivery,)


def test_info_tells_the_limits(client: Client) -> None:
    info = client.info()
    assert "foi" in info.methods
    assert info.limits["outputs"] == 8
    assert info.workers["ready"] == 0
    assert info.defaults["strength"] == 0.8


def test_a_file_that_came_with_other_bytes_is_refused(
    client: Client, relay: Relay, run: Callable[..., None], tmp_path: Path
) -> None:
    edit = client.submit(PNG, "make the ball red")
    run(edit.id)
    edit = client.get(edit)
    with Client(relay.url) as far:
        for file in (edit.outputs[0], edit.masks[0]):
            relay.faults.append(Change(b"IDAT", b"IDOT"))
            with pytest.raises(DownloadError, match=file.name):
                far.fetch(file)
        relay.faults.append(Change(b"IDAT", b"IDOT"))
        with pytest.raises(DownloadError):
            far.download(edit, tmp_path / "new")
        assert list(tmp_path.iterdir()) == []
        assert far.download(edit.id, tmp_path).outputs[0].read_bytes() == client.fetch(edit.outputs[0])


def test_a_file_goes_to_no_other_folder_and_its_key_to_no_other_host(
    client: Client, run: Callable[..., None], tmp_path: Path
) -> None:
    edit = client.submit(PNG, "make the ball red")
    run(edit.id)
    raw = client.get(edit).raw
    elsewhere = {**raw["outputs"][0], "url": "http://203.0.113.1" + raw["outputs"][0]["url"]}
    assert client.fetch(changed(raw, elsewhere).outputs[0]), "from the client's own service"
    for name in ("../../result.png", "..", ".ssh", "a%2Fb", "a\\b", "result.png?x"):
        bad = {**elsewhere, "url": f"/v1/edits/{edit.id}/files/{name}"}
        with pytest.raises(Exception, match="no address of an edit's file"):
            client.download(changed(raw, bad), tmp_path)
    assert list(tmp_path.iterdir()) == []


def changed(raw: Mapping[str, Any], output: dict[str, Any]) -> Edit:
    return read_edit({**raw, "outputs": [output]})


def test_server_and_key_come_from_the_environment(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOI_SERVER", relay.url + "/")
    monkeypatch.setenv("FOI_API_KEY", " foi_secret\n")
    with Client() as client:
        client.info()
    assert "authorization: bearer foi_secret" in relay.heads[0].lower()
    with pytest.raises(ValueError, match="http://"):
        Client("localhost:8000")


def test_every_member_of_an_edit_is_known_here() -> None:
    """A reminder for who adds one to the service: old clients find it in `raw` alone."""
    for ours, theirs in (
        (models.Edit, views.Edit),
        (models.Input, views.InputView),
        (models.Instruction, views.InstructionView),
        (models.Output, views.OutputView),
        (models.Mask, views.MaskView),
        (models.AttentionMap, views.AttentionMapView),
        (models.Delivery, DeliveryView),
        (models.Info, ServiceInfo),
    ):
        names = {field.name for field in dataclasses.fields(ours)}
        assert set(theirs.model_fields) - names <= {"urls"}, ours
