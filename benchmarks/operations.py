"""How many tensor operations a pass of the UNet is: what eager mode launches one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from foi_core.attention import Focus
from foi_core.modulated import masks
from foi_core.unet import UNet

ROWS, TOKENS = 3, 77
"""One edit's."""


class Operations(TorchDispatchMode):
    """Counts what PyTorch is asked for while it is entered, but for views and whatever else computes nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {_storage(one) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        made = {_storage(one) for one in tree_leaves(result) if isinstance(one, Tensor)}
        if func._schema.is_mutable or made - given:
            self.counted[func._schema.name] += 1
        return result


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


@torch.inference_mode()
def count(stock: UNet2DConditionModel) -> dict[str, int]:
    """One edit's pass: `stock`, diffusers' UNet with its own attention; `ip2p`, ours; `foi`, ours with one row in
    focus, modulation being the one kernel that it is on CUDA; `foi_spelled_out`, with PyTorch's own operations for it,
    as on a CPU. `stock` then shares our weights."""
    config, width = stock.config, stock.config.cross_attention_dim
    side = config.sample_size
    sample, timestep = torch.randn(ROWS, config.in_channels, side, side), torch.full((ROWS,), 500.0)
    states = torch.randn(ROWS, TOKENS, width)
    found = {"stock": _operations(lambda: stock(sample, timestep, states))}
    unet = UNet(stock)
    time, text = unet.time_shifts(timestep), unet.text(states)
    covers = tuple(torch.ones(1, h * w, dtype=torch.int32) for h, w in unet.sizes((side, side)))
    focus = Focus(covers, torch.ones(1, TOKENS, dtype=torch.int32), torch.ones(1, TOKENS), null_row=1)
    found["ip2p"] = _operations(lambda: unet(sample, time, text))
    found["foi"] = _operations(lambda: unet(sample, time, text, focus))
    on_cpu = focus._replace(masks=tuple(masks(cover, focus.owner) for cover in covers))
    found["foi_spelled_out"] = _operations(lambda: unet(sample, time, text, on_cpu))
    return found


def _operations(work: Callable[[], object]) -> int:
    work()
    with Operations() as operations:
        work()
    return sum(operations.counted.values())
