"""What several tests need: pictures, an engine without a model, waiting with a deadline."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageChops

from foi_core.result import EditResult, EditWarning, Keyword, Progress
from foi_core.spec import EditSpec, ModelDefaults
from jobs.records import EditInput, Instruction, Submission, new_edit_id, now

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
    edit_input = EditInput.model_validate(values)
    return Submission(id=edit_id or new_edit_id(), created_at=now(), input=edit_input, metadata=None, files={})


class FakeEngine:
    """Inverts the left half of the picture. `during()` runs in each of its `steps`: to wait there, or to raise."""

    def __init__(self, during: Callable[[], object] = lambda: None, steps: int = 3) -> None:
        self.during, self.steps, self.edits = during, steps, 0

    def edit(
        self, image: Image.Image, spec: EditSpec, on_progress: Callable[[Progress], None] | None = None
    ) -> EditResult:
        for step in range(1, self.steps + 1):
            self.during()
            if on_progress is not None:
                on_progress(Progress(step, self.steps, "denoise"))
        self.edits += 1
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


def python(*arguments: str, environment: dict[str, str] | None = None, **options: object) -> subprocess.Popen[str]:
    """A Python process of this project, in the repository's root."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        text=True,
        **options,  # type: ignore[call-overload]
    )
