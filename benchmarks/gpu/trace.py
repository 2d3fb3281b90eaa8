"""When the GPU worked and when it paused, from a trace of torch.profiler in Chrome's format (times in microseconds)."""

from __future__ import annotations

import itertools
import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

STEP = "engine step "
"""Begins the names of the ranges that are steps."""
ON_DEVICE = {"kernel", "gpu_memcpy", "gpu_memset"}
LAUNCHES = {"cuda_runtime", "cuda_driver"}
UNSETTLED = 2
"""First steps that are left out: the profiler itself is still starting."""
SHOWN = 3
JOINED_US = 20.0
"""Kernels with smaller gaps between them are one interval in what is kept for the picture."""
Interval = tuple[float, float]


def read(path: Path) -> dict[str, Any]:
    return pauses(json.loads(path.read_text())["traceEvents"])


def pauses(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares of the time from the first kernel of the settled steps to the end of their last: `between`, from a step's
    last kernel to the next step's first; `all`, without any kernel. And a few steps for the picture, in ms."""
    ranges = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if _is_step(e))
    kernels = _by_step(events, ranges)[UNSETTLED:]
    ranges = ranges[UNSETTLED:]
    if len(kernels) < 2 or not all(kernels):
        raise ValueError("the trace has no kernels for some of the steps: no pauses can be told from it")
    firsts = [min(start for start, _ in of_step) for of_step in kernels]
    lasts = [max(end for _, end in of_step) for of_step in kernels]
    span = max(lasts) - firsts[0]
    gaps = [max(0.0, following - last) for last, following in zip(lasts, firsts[1:], strict=False)]
    busy = sum(end - start for start, end in joined(itertools.chain(*kernels), 0.0))
    shown, origin = kernels[:SHOWN], min(ranges[0][0], firsts[0])
    return {
        "steps": len(kernels),
        "kernels_per_step": len(kernels[0]),
        "step_ms": span / len(kernels) / 1000,
        "between": sum(gaps) / span,
        "all": 1 - busy / span,
        "host": [_ms(one, origin) for one in ranges[:SHOWN]],
        "gpu": [_ms(one, origin) for one in joined(itertools.chain(*shown), JOINED_US)],
    }


def joined(intervals: Iterable[Interval], gap: float) -> list[Interval]:
    """Intervals that overlap, or are at most `gap` apart, as one."""
    found: list[Interval] = []
    for start, end in sorted(intervals):
        if found and start <= found[-1][1] + gap:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found


def _is_step(event: dict[str, Any]) -> bool:
    return event.get("cat") == "user_annotation" and event["name"].startswith(STEP)


def _by_step(events: Sequence[dict[str, Any]], ranges: Sequence[Interval]) -> list[list[Interval]]:
    """The kernels that each step launched. A kernel knows its launch by its correlation; all of a graph have one."""
    launched = {e["args"]["correlation"]: e["ts"] for e in events if e.get("cat") in LAUNCHES and "args" in e}
    starts = [start for start, _ in ranges]
    found: list[list[Interval]] = [[] for _ in ranges]
    for event in events:
        if event.get("cat") in ON_DEVICE and (at := launched.get(event["args"].get("correlation"))) is not None:
            step = bisect_right(starts, at) - 1
            if step >= 0 and at <= ranges[step][1]:
                found[step].append((event["ts"], event["ts"] + event["dur"]))
    return found


def _ms(interval: Interval, origin: float) -> list[float]:
    return [round((time - origin) / 1000, 4) for time in interval]
