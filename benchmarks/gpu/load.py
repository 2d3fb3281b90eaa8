"""Edits that come when they come: our engine against C, first come, first served."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.gpu import edits
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.speed import run_together
from benchmarks.gpu.subjects import Baseline, in_flight
from benchmarks.gpu.timing import say
from foi_core.batching import BatchingEngine
from foi_core.spec import EditSpec

SHARE = 0.8
"""Of C's capacity."""
IN_FLIGHT = 4
"""The worker's default."""
ROUNDS = 3
CALIBRATION = 5


def load(bench: Bench) -> dict[str, Any]:
    """Poisson arrivals of plain edits at 0.8 of what C can do, as measured at the beginning; in each round both get the
    same arrivals, one after the other. Seconds from an edit's arrival to its picture."""
    side, execution = bench.settings.sides[0], bench.execution
    picture, engine = edits.picture(side), bench.subjects.engine(execution, side)
    baseline, spec = bench.subjects.baseline("C"), edits.edit("ip2p", bench.settings.steps)
    alone = partial(bench.meter.seconds, partial(baseline.edit, picture, spec))
    bench.meter.settle(alone)
    capacity = 1 / statistics.median(alone() for _ in range(CALIBRATION))
    found: dict[str, list[list[float]]] = {"C": [], "ours": []}
    with in_flight(engine, IN_FLIGHT) as batching:
        for together in range(1, IN_FLIGHT + 1):
            bench.meter.settle(partial(run_together, batching, picture, [spec] * together))
        for i in range(ROUNDS):
            times, begun = arrivals(SHARE * capacity, bench.settings.arrivals, seed=i), time.monotonic()
            say(f"  round {i + 1} of {ROUNDS}: {len(times)} edits in {times[-1]:.0f} s, twice")
            found["C"].append(first_come(baseline, picture, spec, times))
            found["ours"].append(in_batches(batching, picture, spec, times))
            now = time.monotonic()
            if 2 * now - begun > bench.meter.deadline:
                break
    return {
        "execution": execution,
        "side": side,
        "capacity_per_s": capacity,
        "rate_per_s": SHARE * capacity,
        "in_flight": IN_FLIGHT,
        "latencies": found,
    }


def arrivals(rate: float, count: int, seed: int) -> list[float]:
    """When `count` edits come, in seconds: exponential gaps of `rate` a second."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, count)
    return [float(due) for due in gaps.cumsum()]


def first_come(baseline: Baseline, picture: Image.Image, spec: EditSpec, times: Sequence[float]) -> list[float]:
    """Latencies of edits that are done one by one in the order in which they come."""
    origin, latencies = time.perf_counter(), []
    for due in times:
        time.sleep(max(0.0, origin + due - time.perf_counter()))
        baseline.edit(picture, spec)
        latencies.append(time.perf_counter() - origin - due)
    return latencies


def in_batches(batching: BatchingEngine, picture: Image.Image, spec: EditSpec, times: Sequence[float]) -> list[float]:
    """Latencies of edits that are handed in as they come."""
    origin, ended = time.perf_counter(), dict[int, float]()
    futures = []

    def end(i: int, _: Future[Any]) -> None:
        ended[i] = time.perf_counter()

    for i, due in enumerate(times):
        time.sleep(max(0.0, origin + due - time.perf_counter()))
        future = batching.submit(picture, spec).result
        future.add_done_callback(partial(end, i))
        futures.append(future)
    for future in futures:
        future.result()
    return [ended[i] - origin - due for i, due in enumerate(times)]
