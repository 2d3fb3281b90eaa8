"""What several tests need: pictures, an engine without a model, waiting with a deadline."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Timer
from typing import TypeVar

import numpy as np
from PIL import Image, ImageChops
from redis import Redis
from rq import Queue

from foi_core.batching import BatchingEngine, Capacity
from foi_core.heartbeat import Heartbeat
from foi_core.preparing import at_working_size
from foi_core.result import EditResult, EditWarning, Keyword
from foi_core.sizes import model_size
from foi_core.spec import EditSpec, ModelDefaults
from jobs.blobs import BlobStore
from jobs.queue import PRIORITIES, rq_queues
from jobs.records import EditInput, Instruction, StoredFile, Submission, new_edit_id, now
from jobs.repository import EditRepository
from worker.reporter import Reporter
from worker.room import Room
from worker.task import EditTask

ROOT = Path(__file__).parent.parent
T = TypeVar("T")


def wait_until(condition: Callable[[], T | None], seconds: float = 20) -> T:
    """The condition's first true value; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {condition}")


def picture(width: int = 48, height: int = 32, mode: str = "RGB") -> Image.Image:
    """A picture without any symmetry, the same each time."""
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def submission(edit_id: str | None = None, **changes: object) -> Submission:
    """An edit as the service would store it, without files."""
    values = {
        "instructions": (Instruction(text="make the ball red"),),
        "method": "foi",
        "num_inference_steps": None,
        "strength": 0.8,
        "guidance_scale": None,
        "image_guidance_scale": None,
        "seed": 7,
        "threshold": None,
        "preset": "default",
        "mask_at": None,
        "modulation_end": None,
        "disentangle_end": None,
        "preserve_outside_mask": True,
        "output_format": "png",
        "width": 48,
        "height": 32,
        **changes,
    }
    own = {name: values.pop(name) for name in ("priority", "deadline_at", "previews") if name in values}
    edit_input = EditInput.model_validate(values)
    whole = {"id": edit_id or new_edit_id(), "created_at": now(), "input": edit_input, "metadata": None}
    whole["upload"] = StoredFile(key="none", media_type="image/png", sha256="", size=0)
    return Submission.model_validate({**whole, **own})


class FakeEngine:
    """Inverts the left half of the picture. Under a real `BatchingEngine`; `during()` runs in each of its `steps`: to
    wait there, or to raise. `together`: the most edits that one step had."""

    device = "cpu"

    def __init__(self, during: Callable[[], object] = lambda: None, steps: int = 3) -> None:
        self.during, self.steps, self.edits, self.together = during, steps, 0, 0
        self.heartbeat = Heartbeat()

    def batching(self, edits: int = 4, on_change: Callable[[], None] = lambda: None) -> BatchingEngine:
        return BatchingEngine(self, Capacity(edits, 10**6), on_change)  # type: ignore[arg-type]

    def admit(self, image: Image.Image, spec: EditSpec) -> FakeState:
        return FakeState(image, spec, self.steps)

    def prepare(self, image: Image.Image, spec: EditSpec) -> tuple[Image.Image, EditSpec]:
        return at_working_size(image, spec, model_size(*image.size, resolution=64))

    def step(self, states: list[FakeState]) -> None:
        self.together = max(self.together, len(states))
        self.during()
        for state in states:
            state.step += 1

    def preview(self, state: FakeState) -> Image.Image:
        return state.image.resize((8, 8))

    def decode(self, state: FakeState) -> FakeDecoded:
        self.edits += 1
        return FakeDecoded(self, state.spec)

    def result(self, image: Image.Image, spec: EditSpec) -> EditResult:
        left = Image.new("L", image.size, 0)
        left.paste(255, (0, 0, image.width // 2, image.height))
        masks = tuple(part.mask or left for part in spec.instructions)
        union = masks[0]
        for mask in masks[1:]:
            union = ImageChops.lighter(union, mask)
        count = len(spec.instructions)
        return EditResult(
            image=Image.composite(ImageChops.invert(image), image, union),
            masks=masks,
            attention_maps=tuple(None if part.mask else np.eye(16, dtype=np.float32) for part in spec.instructions),
            keywords=(Keyword("ball", (4,), "rule"),) * count,
            warnings=(EditWarning("text-cut", "too long", 0),),
            spec=spec.with_defaults(ModelDefaults(), seed=0),
            threshold=0.55,
            seconds=0.25,
            unet_rows=0,
        )


@dataclass
class FakeDecoded:
    engine: FakeEngine
    spec: EditSpec

    def drawn(self, image: Image.Image, masks: Sequence[Image.Image | None]) -> EditResult:
        parts = zip(self.spec.instructions, masks, strict=True)
        return self.engine.result(
            image, replace(self.spec, instructions=tuple(replace(part, mask=mask) for part, mask in parts))
        )


@dataclass
class FakeState:
    image: Image.Image
    spec: EditSpec
    steps: int
    step: int = 0
    latent_size: tuple[int, int] = (8, 8)


def run_edit(engine: FakeEngine, repository: EditRepository, blobs: BlobStore, edit_id: str) -> None:
    """One edit, as a thread of a worker runs it."""
    batching = engine.batching()
    reporter = Reporter(repository)
    batching._on_change = reporter.changed
    place = Room(1).enter(0)
    assert place is not None
    try:
        EditTask(batching, reporter, repository, blobs, edit_timeout_s=60, max_deaths=2)(edit_id, place)
    finally:
        reporter.close()
        batching.close()


@contextmanager
def later(seconds: float, work: Callable[..., None], *arguments: object) -> Iterator[None]:
    """`work` is done beside the block, so many seconds after its beginning, and is over when the block is."""
    timer = Timer(seconds, work, arguments)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def normal_queue(redis: Redis) -> Queue:
    return rq_queues(redis)[PRIORITIES.index("normal")]


def python(*arguments: str, environment: dict[str, str] | None = None, **options: object) -> subprocess.Popen[str]:
    """A Python process of this project, in the repository's root."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        text=True,
        **options,  # type: ignore[call-overload]
    )
