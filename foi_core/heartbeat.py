"""Tells slow from hung: networks that work are heard at each of their convolutions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident

from torch import nn


class Heartbeat:
    """When each thread's networks were last heard. `longest` is the longest silence, in seconds, that was measured."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._heard: dict[int, float] = {}  # of each thread, time.monotonic()
        self._measuring: int | None = None  # the thread
        self._listens = False

    def listen(self, network: nn.Module) -> None:
        self._listens = True
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_pre_hook(self._beat)

    def heard(self, thread: int | None) -> float:
        """When the thread (`threading.get_ident`) was last heard, of `time.monotonic()`; 0 for never."""
        return self._heard.get(thread or 0, 0.0)

    def __deepcopy__(self, _: object) -> Heartbeat:
        """A copy of a network is heard as the network itself."""
        return self

    @contextmanager
    def measured(self) -> Iterator[None]:
        """The calling thread works in the block without a pause: its longest silence there is `longest`. Where no
        network is listened to, as on a GPU, there is nothing to measure: all would be silence."""
        if not self._listens:
            yield
            return
        self._measuring = get_ident()
        self._heard[self._measuring] = time.monotonic()
        try:
            yield
            self._beat()
        finally:
            self._measuring = None

    def _beat(self, *_: object) -> None:
        thread, now = get_ident(), time.monotonic()
        if thread == self._measuring:
            self.longest = max(self.longest, now - self._heard[thread])
        self._heard[thread] = now
