"""The sizes at which models see pictures: InstructPix2Pix's rule. Knows no tensors, so that a service can use it."""

from __future__ import annotations

import math

SIDE_MULTIPLE = 64
NATIVE_SIDES = range(SIDE_MULTIPLE, 2048 + 1, SIDE_MULTIPLE)
"""Of the models that there are, and of larger ones."""


def model_size(width: int, height: int, resolution: int) -> tuple[int, int]:
    """Width and height at which the model sees a picture: InstructPix2Pix's own rule, for a native `resolution`.

    f = resolution / max(w, h); f = ceil(min(w, h) f / 64) 64 / min(w, h); both sides floored to multiples of 64. The
    original crops to that size; we resize, and give the result the input's size again.
    """
    factor = resolution / max(width, height)
    factor = math.ceil(min(width, height) * factor / SIDE_MULTIPLE) * SIDE_MULTIPLE / min(width, height)
    # The factor makes the shorter side a multiple up to rounding: without the nudge, 63.999... would floor to nothing.
    return tuple(int(side * factor / SIDE_MULTIPLE + 1e-6) * SIDE_MULTIPLE for side in (width, height))  # type: ignore[return-value]


def is_model_size(size: tuple[int, int], picture: tuple[int, int]) -> bool:
    """Whether some model sees a picture of the size `picture` at `size`; both width and height."""
    return any(size == model_size(*picture, side) for side in NATIVE_SIDES)
