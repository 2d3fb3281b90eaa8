"""What the caller should know about an edit, and what to try."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor

from foi_core import choices
from foi_core.result import EditWarning, Keyword
from foi_core.tokens import TokenisedInstruction

UNCHANGED = 0.25
"""Root mean square change of the latents inside the masks, in units of the source latents' own spread, below which an
edit counts as having changed nothing."""


def edit_warnings(
    text: TokenisedInstruction,
    found: tuple[Image.Image, ...],
    keywords: list[Keyword | None],
    latents: Tensor,
    source: Tensor,
    inside: Tensor,
) -> tuple[EditWarning, ...]:
    """`latents` and `source` unscaled (1, C, h, w), `inside` the union of the masks at their resolution (h, w)."""
    warnings = []
    if text.cut:
        warnings.append(
            EditWarning(
                "text-cut",
                f"The instruction is longer than the model's {len(text.ids)} tokens; its end was not read. "
                "Shorten it, or make two edits.",
            )
        )
    for i, mask in enumerate(found):
        warnings.extend(_mask_warning(i, mask, keywords[i]))
    if inside.any() and relative_change(latents, source, inside) < UNCHANGED:
        warnings.append(
            EditWarning(
                "nothing-changed",
                "The picture hardly changed. Try another seed, a higher guidance_scale, or simpler words.",
            )
        )
    return tuple(warnings)


def relative_change(latents: Tensor, source: Tensor, inside: Tensor) -> float:
    """Root mean square change inside, over the spread of the source."""
    change = ((latents - source).square() * inside).sum() / (inside.sum() * latents.shape[1]).clamp_min(1)
    return float(change.sqrt() / source.std().clamp_min(1e-6))


def _mask_warning(i: int, mask: Image.Image, keyword: Keyword | None) -> list[EditWarning]:
    area = float(np.asarray(mask).mean()) / 255
    word = f"{keyword.text!r}" if keyword else "the instruction"
    if area == 0:
        message = f"No region was found for {word}, so this instruction changes nothing."
        return [EditWarning("mask-empty", f"{message} Name another keyword, or give a mask.", i)]
    if area >= choices.NEARLY_ALL:
        message = f"The region of {word} is the whole picture, so nothing is protected."
        return [EditWarning("mask-full", f"{message} Name another keyword, raise threshold, or give a mask.", i)]
    return []
