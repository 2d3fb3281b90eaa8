"""Numbers that overflow in half precision are computed again in float32; what is not finite is never a result."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn

from foi_core.errors import ModelFailure

Network = TypeVar("Network", bound=nn.Module)


def finite(name: str, network: Network, run: Callable[[Network], Tensor]) -> Tensor:
    """What `run` makes with `network`; where that overflows in half precision, with a copy of it in float32, which
    lives no longer than this call: the network itself is shared with other threads. Raises ModelFailure."""
    found = run(network)
    if torch.isfinite(found).all():
        return found
    if next(network.parameters()).dtype != torch.float32:
        found = run(deepcopy(network).float())
        if torch.isfinite(found).all():
            return found
    raise ModelFailure(
        f"the model's {name} gave numbers that are not finite, in float32 too; the checkpoint seems to be damaged"
    )
