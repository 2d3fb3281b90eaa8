"""What the caller should know about an edit, and what to try."""

from __future__ import annotations

from PIL import Image
from torch import Tensor

from foi_core import choices
from foi_core.bands import area
from foi_core.result import EditWarning, Keyword
from foi_core.spec import SubInstruction
from foi_core.tokens import TokenisedInstruction


def text_warnings(text: TokenisedInstruction) -> list[EditWarning]:
    if not text.cut:
        return []
    message = f"The instruction is longer than the model's {len(text.ids)} tokens; its end was not read."
    return [EditWarning("text-cut", f"{message} Shorten it, or make two edits.")]


def mask_warnings(
    found: tuple[Image.Image, ...], keywords: tuple[Keyword | None, ...], parts: tuple[SubInstruction, ...]
) -> list[EditWarning]:
    """For every mask that is empty or covers (nearly) everything. `found` may be empty: an edit without regions."""
    warnings = []
    for i, mask in enumerate(found):
        share = area(mask)
        if share == 0:
            warnings.append(EditWarning("mask-empty", _empty(keywords[i], parts[i]), i))
        elif share >= choices.NEARLY_ALL:
            warnings.append(EditWarning("mask-full", _full(keywords[i], parts[i]), i))
    return warnings


def change_warnings(change: float | None) -> list[EditWarning]:
    """`change` as `relative_change` gives it."""
    if change is None or change >= choices.UNCHANGED:
        return []
    advice = "Try another seed, a higher guidance_scale, more num_inference_steps or strength, or simpler words."
    return [EditWarning("nothing-changed", f"The picture hardly changed where it could. {advice}")]


def relative_change(after: Tensor, before: Tensor, inside: Tensor) -> float | None:
    """Root mean square change of unscaled latents (1, C, h, w) inside (h, w), over the spread of `before`.

    None where nothing is inside.
    """
    if not inside.any():
        return None
    change = ((after - before).square() * inside).sum() / (inside.sum() * after.shape[1])
    return float(change.sqrt() / before.std().clamp_min(1e-6))


def _empty(keyword: Keyword | None, part: SubInstruction) -> str:
    if part.mask is not None:
        return "The mask that was given is empty, so this instruction changes nothing. White (128 to 255) may change."
    word = f"{keyword.text!r}" if keyword else f"{part.text!r}"
    return f"No region was found for {word}, so this instruction changes nothing. Name another keyword, or give a mask."


def _full(keyword: Keyword | None, part: SubInstruction) -> str:
    if part.mask is not None:
        return "The mask that was given is the whole picture, so nothing is protected. Black stays as it is."
    word = f"{keyword.text!r}" if keyword else f"{part.text!r}"
    advice = "Name another keyword, raise threshold, or give a mask."
    return f"The region of {word} is the whole picture, so nothing is protected. {advice}"
