"""Threads that wait do not take the cores of other processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support import ROOT

PACKAGES = ["benchmarks", "demo", "evaluation", "foi_cli", "worker"]
"""Whose commands import torch. Python imports a command's package before the command itself."""
CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
THREADS_AFTER_LOADING = """
import os, torch
from foi_core.engine import Engine
Engine.load("demo", "cpu")
Engine.load("demo", "cpu")
torch.ones(2**22).add_(1)
print(len(os.listdir("/proc/self/task")))
"""


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the library reads its environment once."""
    own = {name: value for name, value in os.environ.items() if name not in (*CHOICES, "OMP_NUM_THREADS")}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=own | variables, capture_output=True, text=True, check=True
    )


def told_to_libgomp(code: str, **variables: str) -> list[str]:
    """The setting that the library says it has read."""
    lines = run(code, OMP_DISPLAY_ENV="true", **variables).stderr.splitlines()
    return [line.split("=")[1].strip() for line in lines if "OMP_WAIT_POLICY" in line]


def test_the_engine_s_threads_sleep_while_they_wait() -> None:
    assert told_to_libgomp("import foi_core.engine") == ["'PASSIVE'"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_command_of_ours_says_so_before_torch_is_there(package: str) -> None:
    code = f"import {package}, os, sys; print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in sys.modules)"
    assert run(code).stdout.split() == ["PASSIVE", "False"]


@pytest.mark.parametrize(("name", "value"), [("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "1000")])
def test_what_the_user_has_set_stays(name: str, value: str) -> None:
    code = f"import foi_core, os; print({{n: os.environ[n] for n in {CHOICES} if n in os.environ}})"
    assert run(code, **{name: value}).stdout.strip() == str({name: value})


@pytest.mark.skipif(CPUS < 2, reason="one CPU, or not Linux")
def test_where_torch_came_first_loading_leaves_more_threads_than_cpus_unless_the_user_chose() -> None:
    """libgomp then spins for microseconds only."""

    def threads(**variables: str) -> int:
        return int(run(THREADS_AFTER_LOADING, OMP_NUM_THREADS=str(CPUS), **variables).stdout)

    assert threads() - threads(OMP_WAIT_POLICY="ACTIVE") == CPUS
