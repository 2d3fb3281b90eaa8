"""Where each sub-instruction of one edit acts: found in the attention, or given by the caller."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from foi_core import choices, images, masks
from foi_core.tokens import TokenisedInstruction

Size = tuple[int, int]  # (h, w)


@dataclass(frozen=True)
class Region:
    """M_i at the map's resolution, (h, w) of zeros and ones, and the picture that it was read from, if there is one."""

    mask: Tensor
    drawn: Image.Image | None = None
    _read: dict[Size, Tensor] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def from_picture(cls, mask: Image.Image, grid: Size, device: torch.device) -> Region:
        """A mask of the picture's size, given by a caller or drawn from a soft map."""
        return cls(images.mask_to_grid(mask, grid).to(device), mask)

    def at(self, size: Size) -> Tensor:
        """M_i for a layer or the latent; a mask with a picture is read from it where that grid is finer."""
        if size not in self._read:
            if self.drawn is not None and size[0] > self.mask.shape[0]:
                self._read[size] = images.mask_to_grid(self.drawn, size).to(self.mask.device)
            else:
                self._read[size] = masks.interpolate(self.mask, size)
        return self._read[size]

    def picture(self, size: tuple[int, int]) -> Image.Image:
        """The mask of a picture of `size` (width, height): "L", 255 = may change."""
        return images.picture_mask(self.drawn) if self.drawn is not None else images.mask_to_image(self.mask, size)


@dataclass
class Regions:
    """All regions of one edit. `owner` (tokens,) names each token's sub-instruction, k for none; `alpha` (tokens,)."""

    each: tuple[Region, ...]
    owner: Tensor
    alpha: Tensor
    _token_masks: dict[Size, Tensor] = field(default_factory=dict)
    _unions: dict[Size, Tensor] = field(default_factory=dict)

    def token_masks(self, size: Size) -> Tensor:
        """M of Eq. 3 for a layer, (h * w, tokens); made once for every size and kept.

        Each M_i is broadcast over the tokens of its own T_i; the rest follow `choices.UNOWNED_TOKENS`.
        """
        if size not in self._token_masks:
            columns = torch.stack([region.at(size) for region in self.each])
            rest = masks.union(columns) if choices.UNOWNED_TOKENS == "union" else torch.zeros_like(columns[0])
            self._token_masks[size] = torch.cat([columns, rest[None]]).flatten(1)[self.owner].T
        return self._token_masks[size]

    def union(self, size: Size) -> Tensor:
        """M_union of Eq. 8 at the latent's resolution, (h, w); kept likewise."""
        if size not in self._unions:
            self._unions[size] = masks.union(torch.stack([region.at(size) for region in self.each]))
        return self._unions[size]


Word = tuple[str, tuple[int, ...]]  # and its token positions


def most_concentrated(words: tuple[Word, ...], attention: Tensor) -> Word:
    """The word whose attention (h, w, tokens) is most concentrated: the keyword where no rule found one."""
    return min(words, key=lambda word: masks.entropy(masks.keyword_map(attention, list(word[1]))))


def assemble(each: list[Region], text: TokenisedInstruction, intensities: list[float]) -> Regions:
    """Regions with every token's owner and its alpha (1 for tokens of no sub-instruction)."""
    device = each[0].mask.device
    owner = torch.tensor(text.owner, device=device)
    return Regions(tuple(each), owner, torch.tensor([*intensities, 1.0], device=device)[owner])
