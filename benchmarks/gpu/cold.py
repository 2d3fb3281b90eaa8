"""How long a new process takes until it has done its first edit: `cold` starts it, and this module is what it runs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import edits
from benchmarks.gpu.bench import LEG_SECONDS, Bench
from benchmarks.gpu.subjects import ours
from benchmarks.gpu.timing import Meter, say
from foi_core.engine import Execution

STAGES = ("ready", "warm")
STARTS = 3
ROOT = Path(__file__).parents[2]
WARM_STEPS = 8
"""Enough for the engine to record those that follow the masks."""


def cold(bench: Bench) -> dict[str, Any]:
    """Seconds from the start of a process until it is ready (`Engine.warm_up` has ended) and until it is warm (all of a
    FoI edit is recorded or compiled), for each execution. Files that the legs before have read or compiled are in the
    caches of the system and of torch. The device's memory is freed before."""
    bench.subjects.release()
    side, dtype = bench.settings.sides[0], str(bench.subjects.dtype).removeprefix("torch.")
    folder, starts = bench.subjects.folder(side), min(STARTS, bench.settings.repeats)
    seconds: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    for execution in bench.executions:
        try:
            times = [_start(str(folder), str(bench.device), dtype, execution) for _ in range(starts)]
        except RuntimeError as error:
            failed[execution] = str(error)
        else:
            seconds |= {
                f"{execution}, {stage}": list(of) for stage, of in zip(STAGES, zip(*times, strict=True), strict=True)
            }
    return {"side": side, "seconds": seconds, "failed": failed}


def _start(*arguments: str) -> list[float]:
    """When each of the stages was reached."""
    begun, times = time.perf_counter(), []
    command = [sys.executable, "-m", "benchmarks.gpu.cold", *arguments]
    with tempfile.TemporaryFile("w+") as told:
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=told, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip() in STAGES:
                    times.append(time.perf_counter() - begun)
        if process.returncode or len(times) != len(STAGES):
            told.seek(0)
            lines = told.read().strip().splitlines() or ["it said nothing"]
            raise RuntimeError(f"the process ended with status {process.returncode}: {lines[-1]}")
    say(f"  {arguments[-1]}: ready after {times[0]:.1f} s, warm after {times[1]:.1f} s")
    return times


def main(folder: str, device: str, dtype: str, execution: Execution) -> None:
    engine = ours(folder, device, dtype, execution)
    engine.warm_up()
    print(STAGES[0], flush=True)
    picture, spec = edits.picture(engine.working_size((64, 64))[0]), edits.edit("foi", WARM_STEPS)
    meter = Meter(torch.device(device), repeats=1, warm_ups=1, deadline=time.monotonic() + LEG_SECONDS)
    meter.settle(lambda: engine.edit(picture, spec))
    meter.wait()
    print(STAGES[1], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]
