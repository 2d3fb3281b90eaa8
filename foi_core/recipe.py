"""What a way of editing is made of: four parts, each of which can be exchanged alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from foi_core import guidance, images
from foi_core.attention import AttentionPolicy, Rewriting, cross_condition_modulation, exclusive_modulation
from foi_core.mask_sources import GuidedAttention, KeywordAttention, MaskSource
from foi_core.spec import Preset

Compositor = Callable[[Image.Image, Image.Image, Image.Image], Image.Image]
"""(edited, original, mask) -> the picture that is given back; outside the mask it must be `original`."""


@dataclass(frozen=True)
class Recipe:
    """Where masks come from, what attention and sampling do with them, and how the result is put together.

    `apart`: each of several sub-instructions is also encoded by itself, as if it were the whole instruction: for the
    masks, in a row of its own at the mask step, and for `rewriting`. `attention` None leaves it as it is; `rewriting`
    then has the last word on it, if there is one. `outside` None (the paper's) leaves the sampler free there: it goes
    where Eq. 9 leads, near the picture.
    """

    mask_source: MaskSource = KeywordAttention()  # noqa: RUF009  frozen
    attention: AttentionPolicy | None = cross_condition_modulation
    rewriting: Rewriting | None = None
    apart: bool = False
    outside: guidance.OutsidePolicy | None = None
    compositor: Compositor = images.composite


RECIPES: dict[Preset, Recipe] = {
    "paper": Recipe(),
    "default": Recipe(mask_source=GuidedAttention(), attention=exclusive_modulation),
}
