"""Loop state of one edit in flight, and what it does at its present step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image
from torch import Tensor

from foi_core.recipe import Recipe
from foi_core.regions import Regions
from foi_core.result import Keyword
from foi_core.schedule import Schedule
from foi_core.spec import EditSpec
from foi_core.tokens import TokenisedInstruction

if TYPE_CHECKING:
    from foi_core.batch import Batch


@dataclass(frozen=True)
class Found:
    """What the mask step found, one of each per sub-instruction: regions, the soft maps (h, w) that they come from
    (None where the caller gave a mask), keywords."""

    regions: Regions
    attention_maps: tuple[Tensor | None, ...]
    keywords: tuple[Keyword | None, ...]


class Role(NamedTuple):
    """What an edit does in one step."""

    takes_masks: bool
    watches_apart: bool  # each sub-instruction in a row of its own
    in_focus: bool  # its cross-attention is modulated
    rewritten: bool  # and then done anew
    unconditional: bool  # whether its guidance uses e_00
    disentangled: bool


class Numbers(NamedTuple):
    """The numbers of one step, or of one step of several edits, (n,) each."""

    input_scale: Tensor  # this and the next four: as `Coefficients` has them
    skip: Tensor
    out: Tensor
    drift: Tensor
    up: Tensor
    s_I: Tensor
    s_T: Tensor
    xi: Tensor


@dataclass(eq=False)
class EditState:
    """Loop state of one edit in flight; everything else about it is in `spec`."""

    spec: EditSpec
    begun: float  # time.perf_counter(), before anything was encoded
    recipe: Recipe
    image: Image.Image  # at the model's size, as the masks of `spec` are
    text: TokenisedInstruction
    keywords: tuple[Keyword | None, ...]  # as given, or found by rule; None is found in the attention
    threshold: float
    schedule: Schedule
    numbers: Tensor  # (len(schedule), 8) float32: every step's Numbers
    time_shifts: Tensor  # (len(schedule), shifts): every step's, as `UNet.time_shifts` gives them
    noise: Tensor  # (len(schedule), C, h, w): drawn by the edit's own seed, so that its neighbours do not matter
    latents: Tensor  # (1, C, h, w), scaled, float32
    image_latents: Tensor  # (1, C, h, w), unscaled
    instruction_text: Tensor  # (1, tokens, keys and values), as `UNet.text` gives them
    texts_apart: tuple[TokenisedInstruction, ...] = ()  # each sub-instruction by itself, where the recipe needs it
    apart_text: Tensor | None = None  # (k, tokens, keys and values)
    step: int = 0
    unet_rows: int = 0
    found: Found | None = None
    clean: Tensor | None = None  # (1, C, h, w): the clean latents that the last prediction stands for
    batch: Batch | None = None  # that it was last in

    @property
    def steps(self) -> int:
        """How many steps this edit runs: one that only wants masks ends when it has them."""
        return self.mask_step + 1 if self.spec.method == "masks" else len(self.schedule)

    @property
    def mask_step(self) -> int:
        assert self.spec.mask_at is not None
        return min(round(self.spec.mask_at * len(self.schedule)), len(self.schedule) - 1)

    @property
    def role(self) -> Role:
        """What it does in the present step."""
        assert self.spec.modulation_end is not None
        assert self.spec.disentangle_end is not None
        takes_masks = self.spec.method != "ip2p" and self.step == self.mask_step
        modulates = self.found is not None and self.step < round(self.spec.modulation_end * len(self.schedule))
        return Role(
            takes_masks=takes_masks,
            watches_apart=takes_masks and self.apart_text is not None,
            in_focus=modulates and self.recipe.attention is not None,
            rewritten=modulates and self.recipe.rewriting is not None,
            # Eq. 1 and 9 multiply e_00 by 1 - s_I, and masks need no guidance.
            unconditional=self.spec.image_guidance_scale != 1 and not (self.spec.method == "masks" and takes_masks),
            disentangled=(takes_masks or self.found is not None)
            and self.step < round(self.spec.disentangle_end * len(self.schedule)),
        )

    @property
    def latent_size(self) -> tuple[int, int]:
        """(h, w)"""
        return self.latents.shape[-2], self.latents.shape[-1]
