"""What a way of editing is made of: four parts, each of which can be exchanged alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from foi_core import attention, guidance, images
from foi_core.mask_sources import GuidedAttention, KeywordAttention, MaskSource
from foi_core.spec import Preset

Compositor = Callable[[Image.Image, Image.Image, Image.Image], Image.Image]
"""(edited, original, mask) -> the picture that is given back; outside the mask it must be `original`."""


@dataclass(frozen=True)
class Recipe:
    """Where masks come from, what attention and sampling do with them, and how the result is put together.

    `apart`: each of several sub-instructions is also encoded by itself, as if it were the whole instruction: for the
    masks, in a row of its own at the mask step, and for the attention policy. `attention` None leaves it as it is;
    `outside` None (the paper's) leaves the sampler free there: it goes where Eq. 9 leads, near the picture.
    """

    mask_source: MaskSource = KeywordAttention()  # noqa: RUF009  frozen
    attention: attention.AttentionPolicy | None = attention.cross_condition_modulation
    apart: bool = False
    outside: guidance.OutsidePolicy | None = None
    compositor: Compositor = images.composite


RECIPES: dict[Preset, Recipe] = {
    "paper": Recipe(),
    "default": Recipe(mask_source=GuidedAttention(), attention=attention.exclusive_modulation),
}
