"""The modulated attention's kernel on a real device: the interpreter's table, the model's own shapes, a CUDA graph."""

from __future__ import annotations

import pytest
import torch

from foi_core.modulated import modulated_attention, reference
from tests.modulation_cases import CASES, TOLERANCE, Case, deviation

pytest.importorskip("triton", reason="triton is not installed")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

STABLE_DIFFUSION = [(4096, 40), (1024, 80), (256, 160), (64, 160), (9216, 40)]  # (queries, d): 512x512, and 768x768


@pytest.mark.parametrize("name", CASES)
def test_the_kernel_equals_its_twin(name: str) -> None:
    assert deviation(CASES[name], "cuda") <= TOLERANCE[CASES[name].dtype]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("queries", "d"), STABLE_DIFFUSION)
def test_the_kernel_equals_its_twin_in_stable_diffusions_layers(queries: int, d: int, dtype: torch.dtype) -> None:
    assert deviation(Case(d, queries=queries, rows=4, dtype=dtype), "cuda") <= TOLERANCE[dtype]


def test_the_operator_on_cuda_is_the_kernel_and_agrees_with_the_cpu() -> None:
    case = Case(rows=3, dtype=torch.float16)
    with torch.inference_mode():
        on_gpu, on_cpu = modulated_attention(*case.operands("cuda")).cpu(), modulated_attention(*case.operands())
    assert torch.allclose(on_gpu.float(), on_cpu.float(), atol=TOLERANCE[case.dtype] * 8)


def test_a_cuda_graph_replays_it_with_what_its_buffers_hold_then() -> None:
    case = Case(rows=3, dtype=torch.float16)
    operands = case.operands("cuda")
    modulated_attention(*operands)  # compiled before the capture
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = modulated_attention(*operands)
    operands[5].fill_(8)  # every cell in another's region
    operands[0].mul_(0.5)
    graph.replay()
    expected = reference(*operands)
    assert torch.allclose(out.float(), expected.float(), atol=TOLERANCE[case.dtype] * 8)
