"""Precision is what the device computes fast. A CPU without bfloat16 is simulated: oneDNN then uses no newer code."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from foi_core.model import choose_dtype
from tests.support import ROOT

LATENTS_OF_A_SHARD = """
import numpy as np, torch
from demo.data import encode
from demo.models import build_vae
vae = build_vae().eval()
seen = set()
for module in vae.modules():
    if isinstance(module, torch.nn.Conv2d):
        module.register_forward_hook(lambda module, given, out: seen.add(out.dtype))
encode(vae, np.zeros((1, 128, 128, 3), np.uint8), torch.device("cpu"))
print(*seen)
"""


def run(code: str, **environment: str) -> str:
    """What the code prints in a process of its own: oneDNN reads its environment once."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True).stdout.strip()


def test_training_convolves_in_float32_on_a_cpu_that_is_slow_in_bfloat16() -> None:
    assert run(LATENTS_OF_A_SHARD, ONEDNN_MAX_CPU_ISA="AVX2") == "torch.float32"


def test_edits_are_computed_in_float32_on_every_cpu() -> None:
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_a_precision_that_is_asked_for_is_taken(name: str) -> None:
    assert choose_dtype(name, torch.device("cpu")) == getattr(torch, name)
