"""Everything about an edit after its last step."""

from __future__ import annotations

import time

import torch
from PIL import Image
from torch import Tensor

from foi_core import images, warnings
from foi_core.errors import ModelFailure
from foi_core.model import Model
from foi_core.result import EditResult
from foi_core.state import EditState


def finished(model: Model, state: EditState) -> EditResult:
    """Decoded, at the input's size, the input put back outside the masks, and what the caller should know. Raises
    ModelFailure, and UnsafeResult."""
    if not torch.isfinite(state.latents).all():
        raise ModelFailure("the model gave numbers that are not finite; try dtype float32")
    found, masks = state.found, _masks(state)
    picture, flagged = state.image, None
    if state.spec.method != "masks":
        pixels = model.decode(state.latents)[0]
        flagged = model.safety.flags(pixels) if model.safety else None
        picture = _picture(state, masks, pixels)
    keywords = found.keywords if found else ()
    return EditResult(
        image=picture,
        masks=masks,
        attention_maps=tuple(None if m is None else m.cpu().numpy() for m in found.attention_maps) if found else (),
        keywords=keywords,
        warnings=(
            *warnings.text_warnings(state.text),
            *warnings.mask_warnings(masks, keywords, state.spec.instructions),
            *warnings.change_warnings(_change(model, state)),
        ),
        spec=state.spec,
        threshold=state.threshold,
        seconds=time.perf_counter() - state.begun,
        unet_rows=state.unet_rows,
        flagged=flagged,
    )


def _picture(state: EditState, masks: tuple[Image.Image, ...], pixels: Tensor) -> Image.Image:
    edited = images.to_image(pixels, state.image.size)
    if state.found is None or not state.spec.preserve_outside_mask:
        return edited
    return state.recipe.compositor(edited, state.image, images.union(list(masks)))


def _change(model: Model, state: EditState) -> float | None:
    """How much the latents changed where they could; None for an edit that only wanted masks."""
    if state.spec.method == "masks":
        return None
    inside = torch.ones(state.latent_size, device=state.latents.device)
    if state.found is not None:
        inside = state.found.regions.union(state.latent_size)
    after = state.latents / model.vae.config.scaling_factor
    return warnings.relative_change(after, state.image_latents, inside)


def _masks(state: EditState) -> tuple[Image.Image, ...]:
    size = state.image.size
    return tuple(region.picture(size) for region in state.found.regions.each) if state.found else ()
