"""Masks from what the instruction changes in the noise prediction, rather than from attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from foi_core import masks
from foi_core.mask_sources import InCells, KeywordAttention, Seen


def relevance(difference: Tensor) -> Tensor:
    """Watch Your Steps (Mirzaei et al. 2023): |e_IT - e_I0| (C, H, W) summed over channels, outliers clipped by the
    interquartile range, min-max scaled: (H, W) in [0, 1]."""
    total = difference.abs().sum(dim=0)
    low, high = torch.quantile(total.flatten(), torch.tensor([0.25, 0.75], device=total.device))
    spread = 1.5 * (high - low)
    return masks.normalise(total.clamp(low - spread, high + spread))


@dataclass(frozen=True)
class Relevance(InCells):
    """The relevance map alone: no keyword needed."""

    def soft_map(self, seen: Seen, tokens: tuple[int, ...]) -> Tensor:  # noqa: ARG002  needs no keyword
        return relevance(seen.difference)


@dataclass(frozen=True)
class RelevanceTimesAttention(InCells):
    """Both must point at a place: the geometric mean of the relevance map and the keyword's attention map."""

    attention: KeywordAttention = KeywordAttention(gamma=0)  # noqa: RUF009  frozen

    def soft_map(self, seen: Seen, tokens: tuple[int, ...]) -> Tensor:
        attended, relevant = self.attention.soft_map(seen, tokens), relevance(seen.difference)
        fine = F.interpolate(attended[None, None], size=relevant.shape, mode="bilinear")[0, 0]
        return masks.normalise((fine * relevant).sqrt())
