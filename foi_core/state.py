"""Loop state of one edit in flight, and what it does at its present step."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from foi_core.recipe import Recipe
from foi_core.regions import Regions
from foi_core.result import Keyword
from foi_core.schedule import Schedule
from foi_core.spec import EditSpec
from foi_core.tokens import TokenisedInstruction


@dataclass
class EditState:
    """Loop state of one edit in flight; everything else about it is in `spec`."""

    spec: EditSpec
    recipe: Recipe
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
    texts_apart: tuple[TokenisedInstruction, ...] = ()  # each sub-instruction by itself, where the recipe needs it
    states_apart: Tensor | None = None  # (k, tokens, width)
    begun: float = field(default_factory=time.perf_counter)
    step: int = 0
    unet_rows: int = 0
    keywords: list[Keyword | None] = field(default_factory=list)
    attention_maps: list[Tensor | None] = field(default_factory=list)
    regions: Regions | None = None

    @property
    def steps(self) -> int:
        return len(self.schedule)

    @property
    def takes_masks(self) -> bool:
        assert self.spec.mask_at is not None
        mask_step = min(round(self.spec.mask_at * self.steps), self.steps - 1)
        return self.spec.method == "foi" and self.step == mask_step

    @property
    def watches_apart(self) -> bool:
        """Whether the mask step sees each sub-instruction in a row of its own."""
        return self.takes_masks and self.states_apart is not None

    @property
    def instruction_rows(self) -> Tensor:
        """The texts of this step's (I, T) rows, (rows, tokens, width): the whole instruction's, and those that are only
        watched."""
        if self.states_apart is not None and self.takes_masks:
            return torch.cat([self.text_states, self.states_apart])
        return self.text_states

    @property
    def modulating(self) -> Regions | None:
        """The regions that modulate this step: those taken in an earlier one."""
        assert self.spec.modulation_end is not None
        return self.regions if self.step < round(self.spec.modulation_end * self.steps) else None

    @property
    def union(self) -> Tensor | None:
        """M_union where this step is disentangled; the step that takes the masks already is."""
        assert self.spec.disentangle_end is not None
        if self.regions is None or self.step >= round(self.spec.disentangle_end * self.steps):
            return None
        return self.regions.union(self.latent_size)

    @property
    def latent_size(self) -> tuple[int, int]:
        """(h, w)"""
        return self.latents.shape[-2], self.latents.shape[-1]
