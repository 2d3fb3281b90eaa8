"""Loop state of one edit in flight, and what it does at its present step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from foi_core.recipe import Recipe
from foi_core.regions import Regions
from foi_core.result import Keyword
from foi_core.schedule import Schedule
from foi_core.spec import EditSpec
from foi_core.tokens import TokenisedInstruction


@dataclass(frozen=True)
class Found:
    """What the mask step found, one of each per sub-instruction: regions, the soft maps (h, w) that they come from
    (None where the caller gave a mask), keywords."""

    regions: Regions
    attention_maps: tuple[Tensor | None, ...]
    keywords: tuple[Keyword | None, ...]


@dataclass
class EditState:
    """Loop state of one edit in flight; everything else about it is in `spec`."""

    spec: EditSpec
    begun: float  # time.perf_counter(), before anything was encoded
    recipe: Recipe
    image: Image.Image
    text: TokenisedInstruction
    keywords: tuple[Keyword | None, ...]  # as given, or found by rule; None is found in the attention
    threshold: float
    s_I: float
    s_T: float
    schedule: Schedule
    noise: Tensor  # (len(schedule), C, h, w): drawn by the edit's own seed, so that its neighbours do not matter
    latents: Tensor  # (1, C, h, w), scaled, float32
    image_latents: Tensor  # (1, C, h, w), unscaled
    text_states: Tensor  # (1, tokens, width)
    texts_apart: tuple[TokenisedInstruction, ...] = ()  # each sub-instruction by itself, where the recipe needs it
    states_apart: Tensor | None = None  # (k, tokens, width)
    step: int = 0
    unet_rows: int = 0
    found: Found | None = None
    clean: Tensor | None = None  # (1, C, h, w): the clean latents that the last prediction stands for

    @property
    def steps(self) -> int:
        """How many steps this edit runs: one that only wants masks ends when it has them."""
        return self.mask_step + 1 if self.spec.method == "masks" else len(self.schedule)

    @property
    def mask_step(self) -> int:
        assert self.spec.mask_at is not None
        return min(round(self.spec.mask_at * len(self.schedule)), len(self.schedule) - 1)

    @property
    def takes_masks(self) -> bool:
        return self.spec.method != "ip2p" and self.step == self.mask_step

    @property
    def needs_unconditional(self) -> bool:
        """Whether this step's guidance uses e_00: Eq. 1 and 9 multiply it by 1 - s_I, and masks need no guidance."""
        return self.s_I != 1 and not (self.spec.method == "masks" and self.takes_masks)

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
        ended = self.step >= round(self.spec.modulation_end * len(self.schedule))
        return None if ended or self.found is None else self.found.regions

    def union(self, found: Found | None) -> Tensor | None:
        """M_union where this step is disentangled; the step that takes the masks already is."""
        assert self.spec.disentangle_end is not None
        if found is None or self.step >= round(self.spec.disentangle_end * len(self.schedule)):
            return None
        return found.regions.union(self.latent_size)

    @property
    def latent_size(self) -> tuple[int, int]:
        """(h, w)"""
        return self.latents.shape[-2], self.latents.shape[-1]
