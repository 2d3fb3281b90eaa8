"""Noise predictions combined: Eq. 1 and Eq. 9 of Guo and Lin (2024).

e00 = eps(z_t, t, null_I, null_T), eI0 = eps(z_t, t, I, null_T), eIT = eps(z_t, t, I, T); all (..., C, h, w). The
weights of the three sum to one, so both equations hold for velocities as they do for noises.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Scale = float | Tensor  # a Tensor broadcasts over edits: (n, 1, 1, 1)


def ip2p_guidance(e00: Tensor, eI0: Tensor, eIT: Tensor, s_I: Scale, s_T: Scale) -> Tensor:
    """Eq. 1: e00 + s_I (eI0 - e00) + s_T (eIT - eI0)."""
    return e00 + s_I * (eI0 - e00) + s_T * (eIT - eI0)


def disentangled_guidance(e00: Tensor, eI0: Tensor, eIT: Tensor, s_I: Scale, s_T: Scale, M_union: Tensor) -> Tensor:
    """Eq. 9: e00 + s_I (eI0 - e00) + s_T (eIT - eI0) * M_union, with M_union (..., 1, h, w) of zeros and ones."""
    return e00 + s_I * (eI0 - e00) + s_T * (eIT - eI0) * M_union


OutsidePolicy = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(clean latents that the guided prediction stands for, the picture's own latents, M_union) -> clean latents to step
towards; all (..., C, h, w), M_union (h, w) of zeros and ones, whatever the step."""


def source_outside(clean: Tensor, source: Tensor, M_union: Tensor) -> Tensor:
    """Outside the regions the sampler is led to the picture's own latents (Blended Diffusion, Avrahami et al. 2022)."""
    return torch.lerp(source, clean, M_union)
