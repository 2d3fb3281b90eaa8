"""The modulated attention of a batch: against the paper's equations, as one operator, and as a Triton kernel."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foi_core import modulated
from foi_core.modulated import NULL_EVERYWHERE, modulated_attention, reference
from tests.modulation_cases import CASES, TOLERANCE, Case
from tests.support import ROOT

EVERYWHERE = [pytest.param(True, id="null-everywhere"), pytest.param(False, id="null-in-others-regions")]


def by_equations(operands: tuple[Tensor, ...], M: Tensor, union: Tensor, alpha: Tensor, xi: float) -> Tensor:
    """Eq. 3-6 of one row and head as the paper writes them, in float64; M (queries, tokens), alpha (tokens,).

    `union` (queries, 1) is where else than in M the null instruction counts: with ones, Eq. 3 is the paper's own.
    """
    Q_IT, K_IT, V_IT, Q_I0, K_I0 = (operand.double() for operand in operands)
    X, Y = Q_IT @ K_IT.T, Q_I0 @ K_I0.T
    dX = alpha * xi * (X.max(dim=-1, keepdim=True).values - X)
    null = union * (1 - M)
    return (((X + dX * M) * (1 - null) + Y * null) / math.sqrt(Q_IT.shape[-1])).softmax(dim=-1) @ V_IT


@pytest.mark.parametrize("everywhere", EVERYWHERE)
def test_a_batch_is_eq_3_to_7_row_by_row_for_regions_that_overlap(everywhere: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value, null_query, null_key, *_ = Case(rows=3, tokens=20).operands()
    masks = [(torch.rand(k, 63, generator=generator) < 0.4).float() for k in (1, 2, 5)]  # every row its own regions
    of_none = [torch.cat([mask, mask.amax(0, keepdim=True)]) for mask in masks]  # the last: tokens of no instruction
    owners = [torch.randint(0, len(mask), (20,), generator=generator) for mask in of_none]
    alphas, xis = 4 * torch.rand(3, 20, generator=generator), (0.05, 0.02, 0.0)

    cover = torch.stack([sum(m.int() << i for i, m in enumerate(mask)) for mask in masks])
    bits = [torch.tensor([*(1 << i for i in range(len(mask))), (1 << len(mask)) - 1]) for mask in masks]
    owner = torch.stack([bit[own] for bit, own in zip(bits, owners, strict=True)]).int()
    gain = torch.stack([alpha * xi for alpha, xi in zip(alphas, xis, strict=True)])
    cover = cover.int() | (NULL_EVERYWHERE if everywhere else 0)
    ours = modulated_attention(query, key, value, null_query, null_key, cover, owner, gain)

    for row in range(3):
        union = torch.ones(63, 1) if everywhere else of_none[row][-1][:, None]
        M = of_none[row][owners[row]].T
        for head in range(2):
            operands = tuple(operand[row, head] for operand in (query, key, value, null_query, null_key))
            expected = by_equations(operands, M, union, alphas[row], xis[row])
            assert torch.allclose(ours[row, head].double(), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_scores_beyond_half_precision_are_not_lost(dtype: torch.dtype) -> None:
    operands = Case(d=64, dtype=dtype, large=True, cover="null everywhere else", gain=0.0).operands()
    query, key, value, null_query, null_key, cover, owner, _ = operands
    assert (query.double() @ key.double().transpose(-1, -2)).abs().max() / 8 > torch.finfo(torch.float16).max
    M = (cover[0, :, None] & owner[0] != 0).double()
    head = tuple(operand[0, 0] for operand in (query, key, value, null_query, null_key))
    expected = by_equations(head, M, torch.ones(63, 1), torch.ones(77), xi=0.0)
    assert torch.equal(reference(*operands)[0, 0], expected.to(dtype))


def test_in_its_own_region_without_gain_it_is_plain_attention() -> None:
    query, key, value, null_query, null_key, cover, _, gain = Case(rows=3, cover="full", gain=0.0).operands()
    owner = torch.full((3, 77), 2, dtype=torch.int32)
    ours = modulated_attention(query, key, value, null_query, null_key, cover, owner, gain)
    assert torch.allclose(ours, F.scaled_dot_product_attention(query, key, value), atol=1e-5)


def test_outside_of_all_regions_it_is_plain_attention_whatever_the_gain() -> None:
    query, key, value, *others = Case(rows=3, cover="empty", gain=4.0).operands()
    ours = modulated_attention(query, key, value, *others)
    assert torch.allclose(ours, F.scaled_dot_product_attention(query, key, value), atol=1e-5)


def test_in_anothers_region_it_has_the_null_instructions_scores_and_its_own_values() -> None:
    query, key, value, null_query, null_key, *others = Case(rows=3, cover="another's", gain=4.0).operands()
    ours = modulated_attention(query, key, value, null_query, null_key, *others)
    assert torch.allclose(ours, F.scaled_dot_product_attention(null_query, null_key, value), atol=1e-5)


def test_gain_lifts_own_scores_towards_the_queries_maximum_also_that_of_another_token() -> None:
    """One cell, d = 1: X = 1, 3, of which only the first token is own: 1 + .5 (3 - 1) = 2; the other keeps Y = 0."""
    one, key = torch.ones(1, 1, 1, 1), torch.tensor([[[[1.0], [3.0]]]])
    value, bits = torch.tensor([[[[1.0], [0.0]]]]), torch.tensor([[1, 2]], dtype=torch.int32)
    cover, gain = torch.tensor([[1]], dtype=torch.int32), torch.tensor([[0.5, 0.5]])
    share = modulated_attention(one, key, value, one, 0 * key, cover, bits, gain)
    assert share.item() == pytest.approx(math.exp(2) / (math.exp(2) + 1))


@pytest.mark.parametrize("layout", ["projected", "contiguous", "expanded", "apart"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_it_is_a_proper_operator_and_leaves_its_operands_alone(layout: Any, dtype: torch.dtype) -> None:
    operands = Case(queries=9, rows=2, dtype=dtype, layout=layout).operands()
    before = [operand.clone() for operand in operands]
    torch.library.opcheck(modulated.modulated_attention, operands)
    out = modulated_attention(*operands)
    assert out.dtype == dtype
    assert out.shape == operands[0].shape
    assert out.transpose(1, 2).is_contiguous()
    assert all(torch.equal(now, then) for now, then in zip(operands, before, strict=True))


def test_a_compiled_model_holds_it_whole_for_any_number_of_rows_and_size_of_picture() -> None:
    def layer(*operands: Tensor) -> Tensor:
        return modulated_attention(*operands).transpose(1, 2).flatten(2)

    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.inference_mode():
        for case in (Case(rows=2), Case(rows=3, queries=100), Case(rows=4, queries=9)):
            operands = case.operands()
            assert torch.equal(compiled(*operands), layer(*operands))


def test_on_cuda_without_triton_the_twin_takes_over_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    modulated._fused_or_twin.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert modulated._fused_or_twin() is modulated._fused_or_twin() is reference
    modulated._fused_or_twin.cache_clear()
    assert [record.levelname for record in caplog.records if "triton is not installed" in record.message] == ["WARNING"]


@pytest.fixture(scope="module")
def interpreted() -> dict[str, float]:
    """Every case's deviation of the kernel from its twin: all in one process, in Triton's interpreter."""
    pytest.importorskip("triton")
    command = [sys.executable, "-W", "error", "-m", "tests.modulation_cases"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", CASES)
def test_the_kernel_equals_its_twin(interpreted: dict[str, float], name: str) -> None:
    assert interpreted[name] <= TOLERANCE[CASES[name].dtype]


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    "case",
    [
        Case(40, dtype=torch.float16),
        Case(160, dtype=torch.float16),
        Case(160, tokens=256, dtype=torch.bfloat16),
        Case(160, dtype=torch.float32),
    ],
    ids=lambda case: f"{case.dtype}-{case.d}-{case.tokens}",
)
def test_the_kernel_compiles_for_a_gpu_and_fits_the_shared_memory_of_every_card(
    case: Case, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiling takes no GPU. 99 KiB is what a block may have on consumer cards, the least of all since sm_80."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget

    from foi_core import modulated_triton

    device = SimpleNamespace(
        get_current_device=lambda: f"no GPU, sm_{capability}",  # Triton keeps what it compiled by device
        get_current_stream=lambda _: 0,
        get_current_target=lambda: GPUTarget("cuda", capability, 32),
    )
    kernel, compiled = modulated_triton._modulated_attention, []
    compile_only = partial(type(kernel).run, kernel)
    monkeypatch.setattr(kernel, "run", lambda *a, **k: compiled.append(compile_only(*a, **k | {"warmup": True})))
    monkeypatch.setattr(triton.runtime.driver, "_active", device)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))

    modulated_triton.fused(*case.operands())
    assert compiled[0].metadata.shared <= 99 * 1024
    assert compiled[0].asm["cubin"]
