"""Processes and the system: children that never outlive their parent, memory that is given back."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_M_MMAP_THRESHOLD = -3
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def end_with_parent() -> Callable[[], None]:
    """A `preexec_fn`: on Linux the kernel sends SIGTERM to the child when its parent (the calling thread) dies."""
    parent = os.getpid()

    def ask_the_kernel() -> None:
        if _LIBC is None:
            return
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)  # the parent died in between

    return ask_the_kernel


def map_large_blocks(at_least: int) -> None:
    """Gives blocks of memory of so many bytes and more back as soon as they are freed. glibc by itself learns from what
    is freed to keep blocks as large as Pillow's for each thread; with a threshold that is set it does not (mallopt(3)).
    """
    if _LIBC is not None and hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(_M_MMAP_THRESHOLD, at_least)


def give_back_memory() -> None:
    """Gives what is free in the heaps of all threads back to the system (malloc_trim(3)); takes milliseconds."""
    if _LIBC is not None and hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)
