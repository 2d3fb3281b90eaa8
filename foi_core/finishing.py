"""Everything about an edit after its last step: decoded at the model's size, then drawn at the caller's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image

from foi_core import images, warnings
from foi_core.errors import ModelFailure
from foi_core.model import Model
from foi_core.recipe import Compositor
from foi_core.result import EditResult, EditWarning
from foi_core.spec import EditSpec
from foi_core.state import EditState, Found


@dataclass(frozen=True)
class Decoded:
    """An edit that the model is done with. `edited` is its picture at the model's size, None for an edit that only
    wanted masks; `warnings` are those that need no mask of the caller's size. `spec` has masks of the model's size."""

    spec: EditSpec
    edited: Image.Image | None
    found: Found | None
    compositor: Compositor
    text_warnings: tuple[EditWarning, ...]
    change_warnings: tuple[EditWarning, ...]
    threshold: float
    seconds: float
    unet_rows: int
    flagged: bool | None

    def drawn(self, image: Image.Image, masks: Sequence[Image.Image | None] = ()) -> EditResult:
        """The result at the size of `image`, the input put back outside the masks. `image` is the picture that is
        edited and `masks` are those that the caller gave (one for each sub-instruction, or none at all), of the
        picture's size, both as they were before they were brought to the model's. Needs no model: any thread may
        draw."""
        picture, parts = image if image.mode == "RGB" else image.convert("RGB"), self.spec.instructions
        masks = masks or (None,) * len(parts)
        found = self.found
        regions = found.regions.each if found else ()
        drawn = tuple(
            region.picture(picture.size) if given is None else images.picture_mask(given)
            for region, given in zip(regions, masks, strict=False)
        )
        keywords = found.keywords if found else ()
        maps = found.attention_maps if found else ()
        return EditResult(
            image=picture if self.edited is None else self._composed(picture, drawn),
            masks=drawn,
            attention_maps=tuple(None if one is None else one.cpu().numpy() for one in maps),
            keywords=keywords,
            warnings=(
                *self.text_warnings,
                *warnings.mask_warnings(drawn, keywords, parts),
                *self.change_warnings,
            ),
            spec=replace(self.spec, instructions=tuple(replace(p, mask=m) for p, m in zip(parts, masks, strict=True))),
            threshold=self.threshold,
            seconds=self.seconds,
            unet_rows=self.unet_rows,
            flagged=self.flagged,
        )

    def _composed(self, picture: Image.Image, drawn: tuple[Image.Image, ...]) -> Image.Image:
        assert self.edited is not None
        edited = images.resized(self.edited, picture.size)
        if not drawn or not self.spec.preserve_outside_mask:
            return edited
        return self.compositor(edited, picture, images.union(drawn))


def decoded(model: Model, state: EditState) -> Decoded:
    """The model's last work on an edit. Raises ModelFailure, and UnsafeResult."""
    if not torch.isfinite(state.latents).all():
        raise ModelFailure("the model gave numbers that are not finite; try dtype float32")
    edited, flagged = None, None
    if state.spec.method != "masks":
        pixels = model.decode(state.latents)[0]
        flagged = model.safety.flags(pixels) if model.safety else None
        edited = images.to_image(pixels)
    return Decoded(
        spec=state.spec,
        edited=edited,
        found=state.found,
        compositor=state.recipe.compositor,
        text_warnings=tuple(warnings.text_warnings(state.text)),
        change_warnings=tuple(warnings.change_warnings(_change(model, state))),
        threshold=state.threshold,
        seconds=time.perf_counter() - state.begun,
        unet_rows=state.unet_rows,
        flagged=flagged,
    )


def _change(model: Model, state: EditState) -> float | None:
    """How much the latents changed where they could; None for an edit that only wanted masks."""
    if state.spec.method == "masks":
        return None
    inside = torch.ones(state.latent_size, device=state.latents.device)
    if state.found is not None:
        inside = state.found.regions.union(state.latent_size)
    after = state.latents / model.vae.config.scaling_factor
    return warnings.relative_change(after, state.image_latents, inside)
