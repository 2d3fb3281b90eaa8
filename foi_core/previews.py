"""Cheap previews: a picture out of latents by one linear map instead of the decoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from foi_core.model import Model


@dataclass(frozen=True)
class Previewer:
    """Latents -> colours, cell by cell: `weights` (C + 1, 3), the last row the offset."""

    weights: Tensor

    @classmethod
    def fitted(cls, model: Model) -> Previewer:
        """Least squares over one picture of smooth colours, so that it fits the autoencoder of any checkpoint."""
        generator = torch.Generator().manual_seed(0)
        side, cells = model.resolution, model.resolution // model.latent_factor
        colours = torch.rand((1, 3, max(2, cells // 4), max(2, cells // 4)), generator=generator) * 2 - 1
        chart = F.interpolate(colours, (side, side), mode="bilinear")
        latents = model.encode_image(chart).float().cpu() * model.vae.config.scaling_factor
        wanted = F.interpolate(chart, latents.shape[-2:], mode="area")
        return cls(torch.linalg.lstsq(_columns(latents), wanted[0].flatten(1).T).solution)

    def picture(self, latents: Tensor) -> Image.Image | None:
        """Scaled latents (1, C, h, w) -> an RGB picture of w x h pixels; None where they are not finite."""
        height, width = latents.shape[-2:]
        colours = _columns(latents.float().cpu()) @ self.weights
        if not torch.isfinite(colours).all():
            return None
        levels = ((colours + 1) * 127.5).clamp(0, 255).to(torch.uint8)
        return Image.fromarray(levels.reshape(height, width, 3).numpy())


def _columns(latents: Tensor) -> Tensor:
    """(1, C, h, w) -> (h * w, C + 1), a one at the end of each row."""
    columns = latents[0].flatten(1).T
    return torch.cat([columns, torch.ones(len(columns), 1)], dim=1)
