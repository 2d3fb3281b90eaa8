"""The inputs on which the modulated attention's kernel and its eager twin must agree.

A GPU runs them in tests/gpu. Elsewhere they run in Triton's interpreter, by `python -m tests.modulation_cases`: Triton
decides when it is first imported whether it interprets, so that this takes a process of its own.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from foi_core.modulated import NULL_EVERYWHERE, reference

TOLERANCE = {
    torch.float32: 1e-5,
    torch.float16: 2 * torch.finfo(torch.float16).eps,
    torch.bfloat16: 2 * torch.finfo(torch.bfloat16).eps,
}
"""Largest difference, as a part of the largest value. In half precision three roundings of eps / 2 each come together:
the kernel's attention, which meets the values in their own type, its output, and the twin's output."""

HEADS = 2

Cover = Literal["overlapping", "null everywhere else", "empty", "full", "another's"]
COVERS: tuple[Cover, ...] = get_args(Cover)


@dataclass(frozen=True)
class Case:
    """`gain` is the largest; `large` scores are integers beyond half precision, sums of which float32 holds exactly."""

    d: int = 40
    tokens: int = 77
    queries: int = 63
    rows: int = 1
    dtype: torch.dtype = torch.float32
    cover: Cover = "overlapping"
    gain: float = 0.5
    layout: Literal["projected", "contiguous", "expanded", "apart"] = "projected"
    large: bool = False

    def operands(self, device: str = "cpu") -> tuple[Tensor, ...]:
        """As `modulated_attention` takes them; the same each time."""
        generator = torch.Generator().manual_seed(0)
        queries, null_queries = self._projected(self.queries, generator)
        keys, null_keys = self._projected(self.tokens, generator)
        values, _ = self._projected(self.tokens, generator)
        cover = torch.randint(0, 8, (self.rows, self.queries), generator=generator, dtype=torch.int32)
        cover = {
            "overlapping": cover,
            "null everywhere else": cover | NULL_EVERYWHERE,
            "empty": torch.zeros_like(cover),
            "full": torch.full_like(cover, 7),
            "another's": torch.full_like(cover, 8),
        }[self.cover]
        owners = torch.tensor([1, 2, 4, 7], dtype=torch.int32)  # of three regions, and of none of them
        owner = owners[torch.randint(0, 4, (self.rows, self.tokens), generator=generator)]
        gain = torch.rand(self.rows, self.tokens, generator=generator).round(decimals=1) * self.gain
        operands = (queries, keys, values, null_queries, null_keys, cover, owner, gain)
        return tuple(self._laid_out(operand.to(device), i) for i, operand in enumerate(operands))

    def _projected(self, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The (I, T) and the (I, null) rows of one batch, each (rows, heads, length, d) and a view, as in the UNet."""
        size = (2 * self.rows, length, HEADS * self.d)
        if self.large:
            batch = 64.0 * torch.randint(-4, 5, size, generator=generator)
        else:
            batch = 2 * torch.randn(size, generator=generator)
        batch = batch.to(self.dtype).unflatten(-1, (HEADS, self.d)).transpose(1, 2)
        return batch[0::2], batch[1::2]

    def _laid_out(self, operand: Tensor, index: int) -> Tensor:
        if self.layout == "contiguous":
            return operand.contiguous()
        if self.layout == "expanded":
            return operand[:1].expand_as(operand)
        if self.layout == "apart":
            return apart(operand, index + 1) if operand.ndim == 4 else apart(operand.T, index + 1).T
        return operand


def apart(operand: Tensor, margin: int) -> Tensor:
    """The same numbers with other strides, in a store whose other elements nobody may read."""
    unread = math.nan if operand.is_floating_point() else -1
    store = operand.new_full([length + margin for length in operand.shape], unread)
    view = store[tuple(slice(length) for length in operand.shape)]
    return view.copy_(operand)


ALL_SIZES = [
    Case(d, tokens, queries) for d, tokens, queries in product((32, 40, 64, 80, 160), (7, 40, 77), (1, 9, 63, 100, 257))
]
ALL_KINDS = [
    *(
        Case(d=32, rows=rows, cover=cover, gain=gain)
        for cover, (rows, gain) in product(COVERS, ((1, 0.0), (3, 0.5), (1, 4.0)))
    ),
    *(Case(rows=3, layout=layout) for layout in ("contiguous", "expanded", "apart")),
    *(
        Case(d, tokens, rows=2, dtype=dtype)
        for d, tokens, dtype in product((32, 40, 80, 160), (7, 77), (torch.float16, torch.bfloat16))
    ),
    *(Case(d=64, dtype=dtype, large=True) for dtype in TOLERANCE),
    Case(d=128, tokens=256),
]
CASES = {str(case): case for case in (*ALL_SIZES, *ALL_KINDS)}


def deviation(case: Case, device: str = "cpu") -> float:
    """Largest difference of the kernel from its twin, as a part of the largest value."""
    from foi_core.modulated_triton import fused

    operands = case.operands(device)
    kernels, twins = fused(*operands), reference(*operands)
    assert kernels.dtype == case.dtype
    return ((kernels.double() - twins.double()).abs().max() / operands[2].double().abs().max()).item()


def multiply_bfloat16_as_numbers() -> None:
    """The interpreter keeps bfloat16 as bits in uint16, and its `tl.dot` multiplies those as integers (Triton 3.7)."""
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def widened(handle: Any) -> Any:
        if handle.dtype != tl.bfloat16:
            return handle
        return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    as_stored = InterpreterBuilder.create_dot
    InterpreterBuilder.create_dot = lambda self, a, b, *rest: as_stored(self, widened(a), widened(b), *rest)


if __name__ == "__main__":
    os.environ["TRITON_INTERPRET"] = "1"
    multiply_bfloat16_as_numbers()
    print(json.dumps({name: deviation(case) for name, case in CASES.items()}))
