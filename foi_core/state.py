"""Loop state of one edit in flight, and what it does at its present step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from foi_core.regions import Regions
from foi_core.result import Keyword
from foi_core.schedule import Schedule
from foi_core.spec import EditSpec
from foi_core.tokens import TokenisedInstruction


@dataclass
class EditState:
    """Loop state of one edit in flight; everything else about it is in `spec`."""

    spec: EditSpec
    image: Image.Image
    text: TokenisedInstruction
    threshold: float
    s_I: float
    s_T: float
    schedule: Schedule
    generator: torch.Generator
    latents: Tensor  # (1, C, h, w), scaled, float32
    image_latents: Tensor  # (1, C, h, w), unscaled
    text_states: Tensor  # (1, tokens, width)
    step: int = 0
    keywords: list[Keyword | None] = field(default_factory=list)
    attention_maps: list[Tensor | None] = field(default_factory=list)
    regions: Regions | None = None

    @property
    def steps(self) -> int:
        return len(self.schedule)

    @property
    def takes_masks(self) -> bool:
        mask_step = min(round(self.spec.mask_at * self.steps), self.steps - 1)
        return self.spec.method == "foi" and self.step == mask_step

    @property
    def modulating(self) -> Regions | None:
        """The regions that modulate this step: those taken in an earlier one."""
        return self.regions if self.step < round(self.spec.modulation_end * self.steps) else None

    @property
    def union(self) -> Tensor | None:
        """M_union where this step is disentangled; the step that takes the masks already is."""
        if self.regions is None or self.step >= round(self.spec.disentangle_end * self.steps):
            return None
        return self.regions.union((self.latents.shape[-2], self.latents.shape[-1]))
