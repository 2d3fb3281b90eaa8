"""The edits that are measured, and the picture that they are made to."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from foi_core.spec import EditSpec, SubInstruction

SCALES = {"guidance_scale": 7.5, "image_guidance_scale": 1.5}
"""The paper's and diffusers' defaults: three UNet rows an edit."""
PARTS = (
    SubInstruction("make the ball blue", keyword="ball"),
    SubInstruction("turn the sky red", keyword="sky"),
    SubInstruction("remove the tree", keyword="tree"),
)


def picture(side: int) -> Image.Image:
    """Smooth forms with a camera's noise, the same each time."""
    rng = np.random.default_rng(0)
    forms = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((side, side))
    noisy = np.asarray(forms) + rng.normal(0, 4, (side, side, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def edit(method: str, steps: int, seed: int = 0, parts: int = 1, **settings: Any) -> EditSpec:
    """Begins with noise alone (`strength` 1), as diffusers' pipeline does, so that all run the same steps."""
    given = {**SCALES, **settings}
    return EditSpec(PARTS[:parts], method=method, num_inference_steps=steps, strength=1.0, seed=seed, **given)  # type: ignore[arg-type]


def mixed(steps: int) -> list[EditSpec]:
    """Eight that differ in everything that a batch can mix: steps, scales, rows (two where the image's scale is 1),
    sub-instructions, presets, method."""
    three_quarters, half = max(2, 3 * steps // 4), max(2, steps // 2)
    return [
        edit("ip2p", steps, 0),
        edit("ip2p", half, 1, image_guidance_scale=1.0),
        edit("foi", steps, 2),
        edit("foi", three_quarters, 3, parts=2, guidance_scale=5.0),
        edit("foi", half, 4, parts=3, image_guidance_scale=1.0),
        edit("foi", steps, 5, preset="paper", image_guidance_scale=1.2),
        edit("foi", three_quarters, 6, parts=2, preset="paper"),
        edit("foi", half, 7, parts=3, preset="paper", guidance_scale=10.0),
    ]
