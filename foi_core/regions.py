"""Where each sub-instruction of one edit acts: found in the attention, or given by the caller."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from foi_core import images, masks
from foi_core.tokens import TokenisedInstruction

Size = tuple[int, int]  # (h, w)


@dataclass(frozen=True)
class Region:
    """M_i at the map's resolution, (h, w) of zeros and ones; the picture at the model's size that it was read from, if
    there is one; and the finer soft map that this was cut from at `threshold`, where the mask was found in one."""

    mask: Tensor
    drawn: Image.Image | None = None
    fine: Tensor | None = None
    threshold: float = 0.0
    _read: dict[Size, Tensor] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def from_picture(cls, mask: Image.Image, grid: Size, device: torch.device) -> Region:
        """A mask of the model's size, given by a caller or drawn from a soft map."""
        return cls(images.mask_to_grid(mask, grid).to(device), mask)

    @classmethod
    def cut(cls, fine: Tensor, threshold: float, size: tuple[int, int], grid: Size) -> Region:
        """Where a soft map reaches `threshold`. The model works with what is drawn at its `size` (width, height); the
        picture's own mask is drawn from the map, when somebody wants it."""
        drawn = images.cut(fine, threshold, size)
        return cls(images.mask_to_grid(drawn, grid).to(fine.device), drawn, fine, threshold)

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
        if self.fine is not None:
            return images.cut(self.fine, self.threshold, size)
        if self.drawn is not None:
            return images.picture_mask(self.drawn).resize(size, Image.Resampling.NEAREST)
        return images.mask_to_image(self.mask, size)


@dataclass
class Regions:
    """All regions of one edit, as the bits of a number: region i is bit i. `owner` (tokens,) int32 has the bits of the
    regions in which a token acts: its own sub-instruction's; all of them where it has none (choices.py says why).
    `alpha` (tokens,). M of Eq. 3 is where a cell's cover and a token's owner have a bit in common."""

    each: tuple[Region, ...]
    owner: Tensor
    alpha: Tensor
    _covers: dict[Size, Tensor] = field(default_factory=dict)
    _unions: dict[Size, Tensor] = field(default_factory=dict)

    def cover(self, size: Size) -> Tensor:
        """The regions that each cell of a layer is in, (h * w,) int32; made once for every size and kept."""
        if size not in self._covers:
            bits = [region.at(size).flatten().int() << i for i, region in enumerate(self.each)]
            self._covers[size] = torch.stack(bits).sum(dim=0, dtype=torch.int32)
        return self._covers[size]

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
    device, k = each[0].mask.device, len(each)
    union = (1 << k) - 1
    owner = torch.tensor([union if i == k else 1 << i for i in text.owner], dtype=torch.int32, device=device)
    return Regions(tuple(each), owner, torch.tensor([*intensities, 1.0], device=device)[list(text.owner)])
