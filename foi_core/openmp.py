"""OpenMP threads that sleep while they wait for each other, instead of spinning.

torch computes on a CPU with OpenMP threads. By default a thread that is done spins until the last one is, for
milliseconds: on cores that another process uses too, it takes the core from the thread that it waits for, and an edit
takes 10 to 30 times longer.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from threading import Event, Thread

POLICY = "OMP_WAIT_POLICY"
CHOICES = (POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""OpenMP's own name, and those of single libraries: whoever sets one has chosen."""


def wait_asleep() -> None:
    """Sets it for this process and its children, unless the user has chosen, or torch is imported already: its library
    reads the environment only once."""
    if "torch" not in sys.modules and not any(name in os.environ for name in CHOICES):
        os.environ[POLICY] = "PASSIVE"


@cache
def spin_less() -> None:
    """The next best, once torch is imported. It costs a few threads that sleep for ever, once per process.

    GCC's libgomp, which torch brings, spins some 300 times less while it has more threads than there are CPUs
    (`do_spin` in its wait.h). It keeps as many for each Python thread that has computed something in parallel.
    """
    if any(name in os.environ for name in CHOICES) or not hasattr(os, "sched_getaffinity"):
        return
    import torch  # here, because this module must come before it

    threads, cpus = torch.get_num_threads(), len(os.sched_getaffinity(0))
    for _ in range((cpus - 1) // (threads - 1) if threads > 1 else 0):
        computed = Event()
        Thread(target=_compute_and_sleep, args=(threads, computed), name="foi-sleeps", daemon=True).start()
        computed.wait()


def _compute_and_sleep(threads: int, computed: Event) -> None:
    import torch

    torch.ones(threads * 2**16).add_(1)  # torch gives each thread 2**15 numbers or more
    computed.set()
    Event().wait()
