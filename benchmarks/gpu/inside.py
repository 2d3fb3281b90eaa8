"""What a step costs beside the arithmetic: the host's time, the GPU's pauses, memory; and whether neighbours matter."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.gpu import edits, trace
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.speed import run_together
from benchmarks.gpu.subjects import in_flight
from foi_core.engine import Engine
from foi_core.state import EditState

SETTLED = 6
"""Steps after which an edit has its masks, and the engine has recorded those that follow."""
MEASURED = 12
FULL = 8
NEIGHBOURS = (4, 8)
SEEDS = 5


def host(bench: Bench) -> dict[str, Any]:
    """Seconds of a call of `engine.step` that is not waited for, after the device has done all before it: so the
    launches never wait for a full queue. `cpu` is the processor time of the calling thread in it."""
    side, execution = bench.settings.sides[0], bench.execution
    engine, found = bench.subjects.engine(execution, side), {}
    for method in ("ip2p", "foi"):
        for together in (1, FULL):
            states, walls, cpus = _settled(bench, engine, method, together), [], []
            for _ in range(MEASURED):
                bench.meter.wait()
                wall, cpu = time.perf_counter(), time.thread_time()
                engine.step(states)
                walls.append(time.perf_counter() - wall)
                cpus.append(time.thread_time() - cpu)
            found[f"{method}, {together} together"] = {"wall": walls, "cpu": cpus}
    return {"execution": execution, "side": side, "calls": found}


def idle(bench: Bench) -> dict[str, Any]:
    """The GPU's pauses in steps that follow each other, from the kernels' times in a trace of torch.profiler, which
    itself slows the host: an upper bound."""
    bench.needs_cuda()
    side, execution = bench.settings.sides[0], bench.execution
    engine, found = bench.subjects.engine(execution, side), {}
    for together in (1, FULL):
        states = _settled(bench, engine, "foi", together)
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            for i in range(MEASURED):
                with record_function(f"{trace.STEP}{i}"):
                    engine.step(states)
            bench.meter.wait()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            profiler.export_chrome_trace(str(path))
            found[f"{together} together"] = trace.read(path)
    return {"execution": execution, "side": side, "traces": found}


def memory(bench: Bench) -> dict[str, Any]:
    """The most that eight FoI edits in flight take, weights included, in bytes: of tensors, and what torch reserved for
    them. Nothing else is on the device."""
    bench.needs_cuda()
    bench.subjects.release()
    before = torch.cuda.memory_allocated(bench.device)
    side, execution = bench.settings.sides[0], bench.execution
    picture, engine = edits.picture(side), bench.subjects.engine(execution, side)
    specs = [edits.edit("foi", bench.settings.steps, seed) for seed in range(FULL)]
    with in_flight(engine, FULL) as batching:
        bench.meter.settle(partial(run_together, batching, picture, specs))
        torch.cuda.reset_peak_memory_stats(bench.device)
        run_together(batching, picture, specs)
        bench.meter.wait()
    return {
        "execution": execution,
        "side": side,
        "before": before,
        "allocated": torch.cuda.max_memory_allocated(bench.device),
        "reserved": torch.cuda.max_memory_reserved(bench.device),
    }


def neighbours(bench: Bench) -> dict[str, Any]:
    """The share of pixels that differ by at most one level between an edit alone and the same edit among others, for
    each of a few edits."""
    side, execution = bench.settings.sides[0], bench.execution
    picture, engine = edits.picture(side), bench.subjects.engine(execution, side)
    within: dict[str, list[float]] = {}
    equal: dict[str, list[bool]] = {}
    with in_flight(engine, max(NEIGHBOURS)) as batching:
        for method in ("ip2p", "foi"):
            for seed in range(min(SEEDS, bench.settings.repeats)):
                specs = [
                    edits.edit(method, bench.settings.steps, 100 * seed + i, preserve_outside_mask=False)
                    for i in range(max(NEIGHBOURS))
                ]
                alone = engine.edit(picture, specs[0]).image
                for together in NEIGHBOURS:
                    among = run_together(batching, picture, specs[:together])[0]
                    name = f"{method}, 1 of {together}"
                    within.setdefault(name, []).append(within_a_level(alone, among))
                    equal.setdefault(name, []).append(alone.tobytes() == among.tobytes())
    return {"execution": execution, "side": side, "within_a_level": within, "equal": equal}


def within_a_level(one: Image.Image, other: Image.Image) -> float:
    """The share of pixels none of whose channels differ by more than one of 255 levels."""
    difference = np.abs(np.asarray(one, dtype=np.int16) - np.asarray(other, dtype=np.int16))
    return float((difference.max(axis=-1) <= 1).mean())


def _settled(bench: Bench, engine: Engine, method: str, together: int) -> list[EditState]:
    """Edits that will take the same steps from now on."""
    picture = edits.picture(bench.settings.sides[0])

    def begun() -> list[EditState]:
        specs = [edits.edit(method, SETTLED + MEASURED, seed) for seed in range(together)]
        states = [engine.admit(picture, spec) for spec in specs]
        for _ in range(SETTLED):
            engine.step(states)
        return states

    bench.meter.settle(begun)
    return begun()
