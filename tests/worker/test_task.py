"""One edit, run in this process by an engine without a model: what it stores, and how it fails."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from redis import Redis
from structlog.testing import capture_logs

from foi_core.errors import InvalidParameter, ModelFailure, UnsafeResult
from foi_core.result import EditResult
from jobs.blobs import BlobStore
from jobs.connection import RedisError
from jobs.records import EditRecord, Instruction, Safety, now
from jobs.repository import EditRepository, Reply, events_key, preview_key
from jobs.views import view
from tests.support import FakeDecoded, FakeEngine, FakeState, picture, run_edit

Submit = Callable[..., str]
Look = Callable[[str], EditRecord]


def raising(error: BaseException) -> Callable[[], None]:
    def during() -> None:
        raise error

    return during


def test_a_finished_edit_has_its_result_masks_and_maps(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    edit_id = submit(instructions=(Instruction(text="make the ball red"), Instruction(text="turn the sky orange")))
    run_edit(FakeEngine(), repository, blobs, edit_id)
    record = look(edit_id)
    assert (record.status, record.attempt) == ("succeeded", 1)
    assert record.outcome is not None
    assert record.outcome.files.keys() == {
        "result.png",
        "mask-1.png",
        "mask-2.png",
        "attention-1.png",
        "attention-2.png",
    }
    result = Image.open(io.BytesIO(blobs.get(record.files["result.png"].key)))
    expected = np.asarray(picture()).copy()
    expected[:, :24] = 255 - expected[:, :24]
    assert (np.asarray(result) == expected).all()


def test_a_look_for_masks_has_everything_but_a_picture(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    edit_id = submit(method="masks")
    run_edit(FakeEngine(), repository, blobs, edit_id)
    outcome = look(edit_id).outcome
    assert outcome is not None
    assert (outcome.outputs, outcome.files.keys()) == ((), {"mask-1.png", "attention-1.png"})


def test_attention_maps_are_enlarged_for_a_person_to_see(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    edit_id = submit()
    run_edit(FakeEngine(), repository, blobs, edit_id)
    attention_map = Image.open(io.BytesIO(blobs.get(look(edit_id).files["attention-1.png"].key)))
    assert (attention_map.mode, attention_map.size) == ("L", (512, 512))
    assert (attention_map.getpixel((5, 5)), attention_map.getpixel((5, 500))) == (255, 0)


def test_an_edit_that_has_ended_is_not_run_again(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    edit_id, engine = submit(), FakeEngine()
    run_edit(engine, repository, blobs, edit_id)
    first = look(edit_id)
    run_edit(engine, repository, blobs, edit_id)
    run_edit(engine, repository, blobs, "edit_unknown")
    assert engine.edits == 1
    assert look(edit_id) == first


@pytest.mark.parametrize(
    ("error", "slug"),
    [
        (InvalidParameter("instructions[0].keyword", "hat", "a word of the text"), "invalid-parameter"),
        (RuntimeError("secret"), "internal"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out-of-memory"),
        (ModelFailure("not finite"), "internal"),
        (UnsafeResult("flagged"), "unsafe-result"),
    ],
)
def test_each_failure_has_its_type_and_is_final(
    error: Exception, slug: str, submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    edit_id = submit()
    run_edit(FakeEngine(raising(error)), repository, blobs, edit_id)
    record = look(edit_id)
    assert record.status == "failed"
    assert record.outcome is not None
    assert record.outcome.error is not None
    assert record.outcome.error.type == f"/problems/{slug}"
    assert "secret" not in record.outcome.error.detail
    assert record.outcome.files == {}


def test_a_withheld_result_leaves_its_verdict_and_nothing_else(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    class Withholding(FakeEngine):
        def decode(self, _: FakeState) -> FakeDecoded:
            raise UnsafeResult("the safety checker flagged the result")

    edit_id = submit(n=2)
    run_edit(Withholding(), repository, blobs, edit_id)
    record = look(edit_id)
    assert record.attempt == 1
    assert record.outcome is not None
    assert record.outcome.safety == Safety(flagged=True)
    assert (record.outcome.outputs, record.outcome.files) == ((), {})
    shown = view(record).model_dump(mode="json")
    assert (shown["status"], shown["safety"]) == ("failed", {"flagged": True})
    assert shown["error"]["type"] == "/problems/unsafe-result"


def test_an_unexpected_error_is_logged_with_its_traceback(
    submit: Submit, repository: EditRepository, blobs: BlobStore
) -> None:
    edit_id = submit()
    with capture_logs() as lines:
        run_edit(FakeEngine(raising(RuntimeError("why"))), repository, blobs, edit_id)
    (line,) = [line for line in lines if line["log_level"] == "error"]
    assert line["exc_info"] is True


def test_a_missing_picture_fails_the_edit(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    edit_id = submit()
    blobs.delete_edit(edit_id)
    run_edit(FakeEngine(), repository, blobs, edit_id)
    assert look(edit_id).status == "failed"


class DeafRepository(EditRepository):
    def report(self, *_: object) -> list[Reply]:
        raise RedisError("gone")


def test_progress_that_cannot_be_written_does_not_fail_the_edit(
    submit: Submit, look: Look, redis: Any, blobs: BlobStore
) -> None:
    edit_id = submit()
    run_edit(FakeEngine(lambda: time.sleep(0.05)), DeafRepository(redis, 60), blobs, edit_id)
    assert look(edit_id).status == "succeeded"


def test_an_attempt_that_was_overtaken_gives_up_and_commits_nothing(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    edit_id = submit()

    def overtake() -> None:
        time.sleep(0.01)
        if look(edit_id).attempt == 1:
            repository.start(edit_id)

    engine = FakeEngine(overtake, steps=1000)
    run_edit(engine, repository, blobs, edit_id)
    assert (look(edit_id).status, engine.edits) == ("running", 0)


def test_a_canceled_edit_stops_within_two_steps_and_has_no_result(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    edit_id, steps = submit(), 0

    def cancel() -> None:
        nonlocal steps
        steps += 1
        time.sleep(0.05)
        if steps == 3:
            repository.cancel(edit_id)

    run_edit(FakeEngine(cancel, steps=1000), repository, blobs, edit_id)
    record = look(edit_id)
    assert (record.status, record.files.keys()) == ("canceled", set())
    assert steps <= 3 + 2


def test_an_edit_canceled_between_two_workers_is_not_run(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    edit_id, engine = submit(), FakeEngine()
    repository.start(edit_id)
    repository.cancel(edit_id)
    repository.release(edit_id, None, blameless=False)
    run_edit(engine, repository, blobs, edit_id)
    assert (look(edit_id).status, engine.edits) == ("canceled", 0)


def test_a_deadline_that_passes_ends_the_edit_wherever_it_is(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    late = submit(deadline_at=now() - timedelta(seconds=1))
    slow = submit(deadline_at=now() + timedelta(seconds=0.3))
    for edit_id in (late, slow):
        run_edit(FakeEngine(lambda: time.sleep(0.02), steps=1000), repository, blobs, edit_id)
        outcome = look(edit_id).outcome
        assert outcome is not None
        assert outcome.error is not None
        assert outcome.error.type == "/problems/deadline-exceeded"


def test_previews_are_among_the_events_only_where_they_are_asked_for(
    submit: Submit, repository: EditRepository, blobs: BlobStore, redis: Redis
) -> None:
    seen, kept = [], []
    for wanted in (True, False):
        edit_id = submit(previews=wanted)
        run_edit(FakeEngine(lambda: time.sleep(0.05), steps=10), repository, blobs, edit_id)
        previews = [fields["data"] for _, fields in redis.xrange(events_key(edit_id)) if fields["type"] == "preview"]
        seen.append(previews)
        kept.append(redis.get(preview_key(edit_id)))
    assert (seen[1], kept[1]) == ([], None)
    assert 1 <= len(seen[0]) <= 3, "a few a second"
    assert set(seen[0]) == {"{}"}, "the stream, which is kept for a day, holds none of them"
    header, data = json.loads(kept[0].partition(" ")[2])["url"].split(",")
    shown = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (header, shown.format, shown.size) == ("data:image/jpeg;base64", "JPEG", (256, 256))


def test_files_of_an_attempt_that_came_too_late_are_removed(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    edit_id = submit()

    class Canceled(FakeEngine):
        def decode(self, state: FakeState) -> FakeDecoded:
            repository.cancel(edit_id)
            return super().decode(state)

    run_edit(Canceled(), repository, blobs, edit_id)
    assert look(edit_id).status == "canceled"
    assert not blobs.path(f"{edit_id}/out-1/result.png").exists()


class Sloppy(FakeEngine):
    """Changes one pixel by 9 outside the masks."""

    def result(self, *args: Any) -> EditResult:
        result = super().result(*args)
        red, green, blue = result.image.getpixel((40, 10))  # type: ignore[misc]
        result.image.putpixel((40, 10), (red, green, blue + 9 if blue < 128 else blue - 9))
        return result


class Plain(FakeEngine):
    """No regions, as for method ip2p."""

    def result(self, *args: Any) -> EditResult:
        result = super().result(*args)
        return EditResult(result.image, (), (), (), (), result.spec, result.threshold, result.seconds, 0)


def test_change_outside_the_mask_is_measured_not_promised(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    edit_id = submit(output_format="jpeg")
    run_edit(Sloppy(), repository, blobs, edit_id)
    outcome = look(edit_id).outcome
    assert outcome is not None
    assert outcome.metrics is not None
    assert outcome.metrics.change_outside_mask == 9


def test_without_regions_there_is_nothing_to_measure(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    edit_id = submit(method="ip2p")
    run_edit(Plain(), repository, blobs, edit_id)
    outcome = look(edit_id).outcome
    assert outcome is not None
    assert outcome.metrics is not None
    assert (outcome.metrics.mask_area, outcome.metrics.change_outside_mask) == (None, None)
    assert (outcome.masks, outcome.attention_maps) == ((), ())


@pytest.mark.parametrize(("kind", "pillow"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_the_result_says_that_a_model_made_it(
    kind: str, pillow: str, submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    edit_id = submit(output_format=kind)
    run_edit(FakeEngine(), repository, blobs, edit_id)
    stored = look(edit_id).files[f"result.{kind}"]
    image = Image.open(io.BytesIO(blobs.get(stored.key)))
    assert (image.format, stored.media_type) == (pillow, f"image/{kind}")
    image.load()
    packet = image.info["xmp"].decode()
    (description,) = ElementTree.fromstring(packet).iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    source = description.get("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
    assert source == "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
