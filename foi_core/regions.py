"""Where each sub-instruction of one edit acts: found in the attention, or given by the caller."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from foi_core import choices, images, masks
from foi_core.result import Keyword
from foi_core.tokens import TokenisedInstruction

Size = tuple[int, int]  # (h, w)


@dataclass(frozen=True)
class Region:
    """M_i at the map's resolution, (h, w) of zeros and ones, and the picture that it comes from if a caller gave it."""

    mask: Tensor
    given: Image.Image | None = None

    def at(self, size: Size) -> Tensor:
        """M_i for a layer or the latent; a caller's mask is read from its picture where that grid is finer."""
        if self.given is not None and size[0] > self.mask.shape[0]:
            return images.mask_to_grid(self.given, size).to(self.mask.device)
        return masks.interpolate(self.mask, size)

    def picture(self, size: tuple[int, int]) -> Image.Image:
        """The mask of a picture of `size` (width, height): "L", 255 = may change."""
        return images.picture_mask(self.given) if self.given is not None else images.mask_to_image(self.mask, size)


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


def settle_keyword(
    keyword: Keyword | None, candidates: tuple[tuple[str, tuple[int, ...]], ...], seen: Tensor
) -> Keyword | None:
    """The keyword, or where no rule found one the word whose attention is most concentrated. `seen` (h, w, tokens)."""
    if keyword is not None or not candidates:
        return keyword
    word, tokens = min(candidates, key=lambda found: masks.entropy(masks.keyword_map(seen, list(found[1]))))
    return Keyword(word, tokens, "attention")


def attention_map(keyword: Keyword | None, seen: Tensor) -> Tensor:
    """A[e_i] of Eq. 2, smoothed and enhanced, (h, w) in [0, 1]; zero for a keyword without tokens."""
    if keyword is None or not keyword.token_indices:
        return seen.new_zeros(seen.shape[:2])
    return masks.enhance(masks.smooth(masks.keyword_map(seen, list(keyword.token_indices))))


def assemble(each: list[Region], text: TokenisedInstruction, intensities: list[float]) -> Regions:
    """Regions with every token's owner and its alpha (1 for tokens of no sub-instruction)."""
    device = each[0].mask.device
    owner = torch.tensor(text.owner, device=device)
    return Regions(tuple(each), owner, torch.tensor([*intensities, 1.0], device=device)[owner])
