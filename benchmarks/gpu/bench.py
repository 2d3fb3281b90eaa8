"""What every leg is given: settings, subjects, what was measured before it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.results import Results
from benchmarks.gpu.subjects import EXECUTIONS, Subjects
from benchmarks.gpu.timing import Meter, spread
from foi_core.engine import Execution

LEG_SECONDS = 540
"""A leg begins no round that would end later: it fits in ten minutes, if need be with fewer repeats."""


class NeedsCuda(Exception):
    """The figure means something only on a GPU."""


@dataclass(frozen=True)
class Settings:
    """`sides` are the native one and a larger one; `arrivals` the edits of a round under load."""

    model: str | None
    tiny: bool
    steps: int
    repeats: int
    warm_ups: int
    execution: Execution | None
    compile_mode: str
    sides: tuple[int, int]
    arrivals: int

    def as_head(self) -> dict[str, Any]:
        """What must be the same for figures to stand in one table."""
        shape = "tiny" if self.tiny else "the shape of InstructPix2Pix (Stable Diffusion 1.5)"
        return {
            "model": Path(self.model).name if self.model else f"random weights, {shape}",
            "steps": self.steps,
            "repeats": self.repeats,
            "warm_ups": self.warm_ups,
            "execution": self.execution or "the fastest for a single edit",
            "torch.compile mode of C": self.compile_mode,
            "arrivals a round": self.arrivals,
        }


@dataclass
class Bench:
    """One run. `meter` is the present leg's."""

    settings: Settings
    results: Results
    subjects: Subjects
    meter: Meter = field(init=False)

    def begin(self) -> None:
        """A leg's time begins."""
        settings = self.settings
        self.meter = Meter(self.device, settings.repeats, settings.warm_ups, time.monotonic() + LEG_SECONDS)

    @property
    def device(self) -> torch.device:
        return self.subjects.device

    @property
    def executions(self) -> tuple[Execution, ...]:
        return EXECUTIONS[self.device.type]

    @property
    def execution(self) -> Execution:
        """The chosen one; else the fastest for a single plain edit; the first where none was measured."""
        if self.settings.execution is not None:
            return self.settings.execution
        seconds = self.results.legs.get("single", {}).get("seconds", {})
        known = {one: seconds[f"{one} ip2p"] for one in self.executions if f"{one} ip2p" in seconds}
        return min(known, key=lambda one: spread(known[one])["median"], default=self.executions[0])

    def needs_cuda(self) -> None:
        if self.device.type != "cuda":
            raise NeedsCuda


Leg = Callable[[Bench], dict[str, Any]]
