"""What an edit of several outputs, or of another size than its picture, stores."""

from __future__ import annotations

import gc
import io
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from PIL import Image

from foi_core.batching import Ticket
from foi_core.errors import InvalidParameter
from foi_core.result import EditResult, EditWarning, Progress, Stage
from foi_core.spec import SEED_LIMIT, EditSpec, SubInstruction
from jobs.blobs import BlobStore
from jobs.pictures import to_png
from jobs.records import MAX_SIDES, UPLOAD, EditRecord, Instruction, Outcome, OutputFormat, Safety, now
from jobs.records import Progress as Shown
from jobs.repository import EditRepository
from jobs.views import view
from tests.support import FakeEngine, FakeState, picture, run_edit, submission
from worker.files import encode
from worker.reporter import Watched

Submit = Callable[..., str]
Look = Callable[[str], EditRecord]


def opened(blobs: BlobStore, record: EditRecord, name: str) -> Image.Image:
    return Image.open(io.BytesIO(blobs.get(record.files[name].key)))


def ended(record: EditRecord, status: str = "succeeded") -> Outcome:
    assert record.outcome is not None
    assert record.status == status, record.outcome.error
    return record.outcome


class Looked(FakeEngine):
    """Whose safety checker flags the seeds `flagged`; None: there is none."""

    def __init__(self, flagged: set[int] | None) -> None:
        super().__init__()
        self.flagged = flagged

    def result(self, image: Image.Image, spec: EditSpec) -> EditResult:
        verdict = None if self.flagged is None else spec.seed in self.flagged
        return replace(super().result(image, spec), flagged=verdict)


@pytest.mark.parametrize(
    ("flagged", "safety"), [(None, None), (set(), Safety(flagged=False)), ({8}, Safety(flagged=True))]
)
def test_the_record_has_the_verdict_on_all_outputs_together(
    flagged: set[int] | None,
    safety: Safety | None,
    submit: Submit,
    look: Look,
    repository: EditRepository,
    blobs: BlobStore,
) -> None:
    edit_id = submit(n=2, seed=7)
    run_edit(Looked(flagged), repository, blobs, edit_id)
    outcome = ended(look(edit_id))
    assert (outcome.safety, len(outcome.outputs)) == (safety, 2)
    assert view(look(edit_id)).safety == safety


class Seeded(FakeEngine):
    """Each seed has a mask of its own, takes longer, changes more outside, and warns of itself."""

    def result(self, image: Image.Image, spec: EditSpec) -> EditResult:
        assert spec.seed is not None
        i = (spec.seed + 1) % SEED_LIMIT
        result = super().result(image, spec)
        mask = Image.new("L", image.size, 0)
        mask.paste(255, (0, 0, image.width // 2 // (i + 1), image.height))
        changed = np.asarray(image).copy()
        changed[0, -1, 0] ^= 1 << i
        warning = EditWarning("mask-empty", f"output {i}", None if i < 2 else 0)
        return replace(
            result,
            image=Image.fromarray(changed),
            masks=(mask,) * len(spec.instructions),
            seconds=i + 1.0,
            threshold=i / 4,
            warnings=(*result.warnings, warning),
        )


def test_several_outputs_are_made_in_one_batch_and_each_has_its_seed_and_files(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    two = (Instruction(text="make the ball red"), Instruction(text="turn the sky orange"))
    edit_id = submit(n=3, seed=SEED_LIMIT - 1, output_format="webp", instructions=two)
    engine = FakeEngine(lambda: time.sleep(0.02), steps=20)
    run_edit(engine, repository, blobs, edit_id)
    record = look(edit_id)
    outcome = ended(record)
    seeds = [SEED_LIMIT - 1, 0, 1]
    assert engine.together == 3
    assert [(o.seed, o.file) for o in outcome.outputs] == list(
        zip(seeds, ["result.webp", "result-2.webp", "result-3.webp"], strict=True)
    )
    masks = ["mask-1.png", "mask-2.png", "mask-1-2.png", "mask-2-2.png", "mask-1-3.png", "mask-2-3.png"]
    assert [m.file for m in outcome.masks] == masks
    assert [(m.seed, m.instruction) for m in outcome.masks] == [(seed, i) for seed in seeds for i in range(2)]
    assert [m.file for m in outcome.attention_maps] == [name.replace("mask", "attention") for name in masks]
    assert [m.seed for m in outcome.attention_maps] == [m.seed for m in outcome.masks]
    assert len(outcome.files) == 3 + 6 + 6
    assert all(opened(blobs, record, name).size for name in outcome.files)
    assert (record.input.n, record.input.seed, record.input.num_inference_steps) == (3, SEED_LIMIT - 1, 100)
    assert [warning.code for warning in outcome.warnings] == ["text-cut"]


def test_the_metrics_of_several_outputs_are_the_mean_area_and_the_worst_of_the_rest(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    edit_id = submit(n=3, seed=SEED_LIMIT - 1)
    run_edit(Seeded(), repository, blobs, edit_id)
    record = look(edit_id)
    outcome = ended(record)
    metrics = outcome.metrics
    assert metrics is not None
    assert metrics.mask_area == pytest.approx((1 / 2 + 1 / 4 + 1 / 6) / 3, abs=1e-6)
    assert (metrics.change_outside_mask, metrics.run_ms) == (4, 3000)
    assert record.input.threshold_used == 0
    assert [(w.code, w.message) for w in outcome.warnings] == [
        ("text-cut", "too long"), ("mask-empty", "output 0"), ("mask-empty", "output 2"),
    ]  # fmt: skip
    assert [o.file for o in outcome.outputs] == ["result.png", "result-2.png", "result-3.png"]


def test_a_look_for_masks_may_have_several_seeds_too(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    edit_id = submit(method="masks", n=2)
    run_edit(FakeEngine(), repository, blobs, edit_id)
    outcome = ended(look(edit_id))
    assert outcome.outputs == ()
    assert outcome.files.keys() == {"mask-1.png", "attention-1.png", "mask-1-2.png", "attention-1-2.png"}


class Unlucky(FakeEngine):
    """One seed of several cannot be edited."""

    def step(self, states: list[FakeState]) -> None:
        if any(state.spec.seed == 8 for state in states):
            raise InvalidParameter("threshold", 2, "less")
        time.sleep(0.01)
        super().step(states)


def test_one_output_that_fails_is_the_edits_failure_and_stops_the_others(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    edit_id, engine = submit(n=6), Unlucky(steps=1000)
    run_edit(engine, repository, blobs, edit_id)
    outcome = ended(look(edit_id), "failed")
    assert outcome.error is not None
    assert outcome.error.type == "/problems/invalid-parameter"
    assert (outcome.files, engine.edits) == ({}, 0)


def test_a_cancel_stops_all_outputs_those_that_wait_for_a_place_in_the_batch_too(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    edit_id, steps = submit(n=6), 0

    def cancel() -> None:
        nonlocal steps
        steps += 1
        time.sleep(0.05)
        if steps == 3:
            repository.cancel(edit_id)

    engine = FakeEngine(cancel, steps=1000)
    run_edit(engine, repository, blobs, edit_id)
    ended(look(edit_id), "canceled")
    assert engine.edits == 0
    assert steps <= 3 + 2


def test_a_deadline_is_that_of_all_outputs(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    edit_id = submit(n=6, deadline_at=now() + timedelta(seconds=0.3))
    run_edit(FakeEngine(lambda: time.sleep(0.02), steps=1000), repository, blobs, edit_id)
    error = ended(look(edit_id), "failed").error
    assert error is not None
    assert error.type == "/problems/deadline-exceeded"


def test_the_progress_shown_is_that_of_all_outputs_together() -> None:
    def at(step: int, stage: Stage) -> Ticket:
        spec = EditSpec((SubInstruction("make the ball red"),))
        return Ticket(0, step, picture(), spec, None, progress=Progress(step, 9, stage))

    running = [at(9, "decode"), at(5, "denoise"), at(0, "encode")]
    assert Watched("edit", 1, running, None).report().progress == Shown(step=14, steps=27, stage="denoise")
    ready = [at(9, "decode"), at(9, "decode")]
    assert Watched("edit", 1, ready, None).report().progress == Shown(step=18, steps=18, stage="decode")


def test_at_the_models_size_picture_result_and_masks_are_resized_and_kept_outside(
    look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    mask = Image.new("L", (160, 80), 0)
    mask.paste(255, (0, 0, 40, 80))
    new = submission(
        output_size="model",
        instructions=(Instruction(text="make the ball red", mask="given.png"),),
        width=160,
        height=80,
    )
    upload = blobs.put_input(new.id, UPLOAD, to_png(picture(160, 80)), "image/png")
    given = blobs.put_input(new.id, "given.png", to_png(mask), "image/png")
    repository.create(new.model_copy(update={"upload": upload, "files": {"given.png": given}}))
    run_edit(FakeEngine(), repository, blobs, new.id)
    record = look(new.id)
    outcome = ended(record)
    size = (128, 64)
    assert [(o.width, o.height) for o in outcome.outputs] == [size]
    assert (record.input.output_size, record.input.width, record.input.height) == ("model", 160, 80)
    result, found = opened(blobs, record, "result.png"), opened(blobs, record, "mask-1.png")
    assert result.size == found.size == size
    white = np.asarray(found) > 0
    assert set(np.unique(np.asarray(found))) == {0, 255}
    assert white.mean() == pytest.approx(1 / 4, abs=0.02)
    small = np.asarray(picture(160, 80).resize(size, Image.Resampling.LANCZOS))
    assert (np.asarray(result)[~white] == small[~white]).all()
    assert (np.asarray(result)[white] == 255 - small[white]).all()
    assert outcome.metrics is not None
    assert outcome.metrics.change_outside_mask == 0


def test_each_output_is_stored_before_the_next_is_drawn(
    submit: Submit, look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    edit_id = submit(n=3)

    class Looking(FakeEngine):
        stored: list[list[str]]

        def result(self, image: Image.Image, spec: EditSpec) -> EditResult:
            folder = blobs.path(f"{edit_id}/out-1")
            assert folder is not None
            self.stored.append(sorted(path.name for path in folder.glob("result*")))
            return super().result(image, spec)

    engine = Looking()
    engine.stored = []
    run_edit(engine, repository, blobs, edit_id)
    ended(look(edit_id))
    assert engine.stored == [[], ["result.png"], ["result-2.png", "result.png"]]


def test_a_large_picture_is_not_kept_while_the_model_works(
    look: Look, repository: EditRepository, blobs: BlobStore
) -> None:
    """Read once to be shrunk and once to be drawn on."""
    side = 1024
    new = submission(width=side, height=side)
    upload = blobs.put_input(new.id, UPLOAD, to_png(picture(side, side)), "image/png")
    repository.create(new.model_copy(update={"upload": upload}))

    def large() -> list[int]:
        gc.collect()
        return [one.width for one in gc.get_objects() if issubclass(type(one), Image.Image) and one.width == side]

    seen: list[list[int]] = []
    run_edit(FakeEngine(lambda: seen.append(large())), repository, blobs, new.id)
    assert ended(look(new.id)).outputs[0].width == side
    assert seen == [[]] * 3


@pytest.mark.parametrize("kind", ["webp", "jpeg"])
def test_the_encoders_hold_what_the_limits_say_and_no_more(kind: OutputFormat) -> None:
    most = MAX_SIDES[kind]
    assert encode(Image.new("RGB", (most, 16)), kind)
    with pytest.raises((OSError, ValueError)):
        encode(Image.new("RGB", (most + 1, 16)), kind)
