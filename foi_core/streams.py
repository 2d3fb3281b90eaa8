"""On which CUDA streams an engine's work runs: steps on one, encoding and decoding beside them. Nothing on a CPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Streams:
    """One thread steps; any thread may work beside it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._steps = torch.cuda.default_stream(device) if device.type == "cuda" else None
        self._last: torch.cuda.Event | None = None
        self._own = threading.local()  # memory is cached by stream: one for each thread, not one for each edit

    @contextmanager
    def step(self) -> Iterator[None]:
        """Launches a step, and waits until the one before it is done: the device always has the next, and what is told
        of an edit, or asked of it, is never more than one step away."""
        if self._steps is None:
            yield
            return
        with torch.cuda.device(self._device), torch.cuda.stream(self._steps):
            yield
            launched = torch.cuda.Event(blocking=True)
            launched.record(self._steps)
        before, self._last = self._last, launched
        if before is not None:
            before.synchronize()

    @contextmanager
    def beside(self, *, after_steps: bool) -> Iterator[None]:
        """Work that the steps need not wait for; done when the block is. `after_steps`: it works on what they made."""
        if self._steps is None:
            yield
            return
        with torch.cuda.device(self._device):
            if not hasattr(self._own, "stream"):
                self._own.stream = torch.cuda.Stream(self._device)
            stream: torch.cuda.Stream = self._own.stream
            if after_steps:
                stream.wait_stream(self._steps)
            with torch.cuda.stream(stream):
                yield
            stream.synchronize()

    def keep_for_steps(self, tensors: list[Tensor]) -> None:
        """Made beside the steps, used by them: their memory is nobody else's until the steps are through with them."""
        if self._steps is not None:
            for tensor in tensors:
                tensor.record_stream(self._steps)
