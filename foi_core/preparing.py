"""An edit's pictures at the size at which the model works: all that the engine itself sees of them."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image

from foi_core import images
from foi_core.errors import InvalidParameter
from foi_core.spec import MAX_ASPECT, MIN_SIDE, EditSpec


def at_working_size(image: Image.Image, spec: EditSpec, working_size: tuple[int, int]) -> tuple[Image.Image, EditSpec]:
    """The picture in RGB and `spec` with its masks as "L", 0 or 255, all at `working_size` (width, height); those that
    have it are not copied. `images.mask_to_grid` says what becomes of thin masks. Raises InvalidParameter for a mask of
    another size than the picture's."""
    for i, part in enumerate(spec.instructions):
        if part.mask is not None and part.mask.size != image.size:
            allowed = f"a mask of the picture's size {image.size}"
            raise InvalidParameter(f"instructions[{i}].mask", part.mask.size, allowed)
    parts = tuple(
        part if part.mask is None else replace(part, mask=images.shrunk_mask(part.mask, working_size))
        for part in spec.instructions
    )
    picture = image if image.mode == "RGB" else image.convert("RGB")
    return images.resized(picture, working_size), replace(spec, instructions=parts)


def check_size(size: tuple[int, int]) -> None:
    """Raises InvalidParameter for a picture that is too small or too narrow."""
    if min(size) < MIN_SIDE or max(size) > MAX_ASPECT * min(size):
        allowed = f"sides of at least {MIN_SIDE} pixels, one at most {MAX_ASPECT} times the other"
        raise InvalidParameter("image", size, allowed)
