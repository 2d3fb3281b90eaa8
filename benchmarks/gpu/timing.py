"""Seconds on a device that works on its own: waited for before and after, and everything that is compared in turn."""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch

T = TypeVar("T")

COMPILER = "engine-compile"
"""The engine's thread that compiles beside its steps: what is measured meanwhile is neither one thing nor the other."""
Work = Callable[[], float]
"""Does it once, and tells the seconds that it took."""


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def reason(error: BaseException) -> str:
    """Why something did not go, in one line."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first[:300]}" if first else type(error).__name__


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest, and of how many."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "repeats": len(values)}


@dataclass
class Timed:
    """`seconds` of each work, one a round, so that those of one index were measured side by side; and why others have
    none."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "failed": self.failed}


@dataclass(frozen=True)
class Meter:
    """Measures on `device`, `repeats` times or until `deadline` (of `time.monotonic()`), after `warm_ups`."""

    device: torch.device
    repeats: int
    warm_ups: int
    deadline: float

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object]) -> float:
        self.wait()
        begun = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - begun

    def settle(self, work: Callable[[], object]) -> None:
        """Does it until the engine has recorded and compiled what it needs for it. Raises TimeoutError."""
        for _ in range(self.warm_ups):
            work()
        while compilers := [thread for thread in threading.enumerate() if thread.name == COMPILER]:
            say("    waiting for the engine's compiler")
            for thread in compilers:
                thread.join(max(0.0, self.deadline - time.monotonic()))
                if thread.is_alive():
                    raise TimeoutError("the engine was still compiling when the leg's time was over; try again")
            work()

    def timed(self, work: Callable[[], object]) -> Work:
        return lambda: self.seconds(work)

    def in_turn(self, works: Mapping[str, Work]) -> Timed:
        """Every work once a round, another one first each time, so that a change of the clock meets all of them. What
        fails is left out from then on, with its reason: the others are measured without it."""
        found = Timed({name: [] for name in works})
        for name, work in works.items():
            say(f"  warming up: {name}")
            self._try(name, partial(self.settle, work), found)
        for i in range(self.repeats):
            begun = time.monotonic()
            names = list(found.seconds)
            for place in range(len(names)):
                name = names[(i + place) % len(names)]
                seconds = self._try(name, works[name], found)
                if seconds is not None:
                    found.seconds[name].append(seconds)
            now = time.monotonic()
            say(f"  round {i + 1} of {self.repeats}: {now - begun:.1f} s")
            if i + 1 < self.repeats and 2 * now - begun > self.deadline:
                found.failed["repeats"] = f"only {i + 1} of {self.repeats} fitted into the leg's time; again, or fewer"
                break
        return found

    def _try(self, name: str, work: Callable[[], T], found: Timed) -> T | None:
        try:
            return work()
        except Exception as error:  # a compiler, a driver or a lack of memory: any type, and the others still run
            del found.seconds[name]
            found.failed[name] = reason(error)
            say(f"  {name} failed: {found.failed[name]}")
            return None
