"""`python -m benchmarks.host`: what the engine costs beside the model's own work, and what batching wins, on a CPU.

One process, no HTTP: tensor operations of a pass against diffusers' UNet; a FoI step against an IP2P step, in turns,
on the demo model and on one of Stable Diffusion 1.5's shape with random weights; eight edits in one batch against the
same one by one (interleaved), the UNet's time by rows, which explains the ratio; host time of a step with the UNet
replaced by a ready tensor; memory after many edits; steps until a stop takes effect. Writes host.json, host.md and
host.png.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from benchmarks import operations
from benchmarks.machine import describe
from benchmarks.random_model import SD15, write_random_checkpoint
from foi_core import EditCanceled, EditSpec, SubInstruction
from foi_core.batching import BatchingEngine, Capacity
from foi_core.engine import Engine
from foi_core.state import EditState

PICTURE = Path(__file__).parent.parent / "demo" / "samples" / "scene.png"
PART = SubInstruction("make the ball blue", keyword="ball")
TWO = (PART, SubInstruction("turn the grass into sand", keyword="grass"))
ALL = 8
ROOM = 10**9
"""Cells: no limit but the number of edits."""
PAGE = os.sysconf("SC_PAGE_SIZE")


def spec(seed: int, **settings: Any) -> EditSpec:
    return EditSpec((PART,), seed=seed, **settings)


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def throughput(engine: Engine, picture: Image.Image, repeats: int, steps: int) -> dict[str, Any]:
    """Edits/s of eight together and of the same eight one by one, each repeat one after the other."""
    specs = [spec(seed, num_inference_steps=steps) for seed in range(ALL)]
    batching = BatchingEngine(engine, Capacity(ALL, ROOM))

    def together() -> None:
        for ticket in [batching.submit(picture, one) for one in specs]:
            ticket.result.result().drawn(picture)

    def one_by_one() -> None:
        for one in specs:
            batching.submit(picture, one).result.result().drawn(picture)

    together()
    one_by_one()
    times = [(seconds(together), seconds(one_by_one)) for _ in range(repeats)]
    batching.close()
    ratios = [alone / batched for batched, alone in times]
    return {
        "together_edits_per_s": [round(ALL / batched, 3) for batched, _ in times],
        "one_by_one_edits_per_s": [round(ALL / alone, 3) for _, alone in times],
        "ratio": {"median": round(statistics.median(ratios), 2), "min": min(ratios), "max": max(ratios)},
    }


def foi_against_ip2p(engine: Engine, picture: Image.Image, edits: int, steps: int) -> dict[str, float]:
    """ms of a step of so many edits: plain ones, and ones of two instructions that are modulated and disentangled in
    every step; taken in turns. `ratio` is the median of the turns' ratios."""

    def begun(method: str) -> list[EditState]:
        settings = {"num_inference_steps": steps + 1, "strength": 1.0, "modulation_end": 1.0, "disentangle_end": 1.0}
        specs = [EditSpec(TWO, method=method, seed=seed, **settings) for seed in range(edits)]  # type: ignore[arg-type]
        states = [engine.admit(picture, one) for one in specs]
        engine.step(states)  # masks are taken here
        return states

    plain, foi = begun("ip2p"), begun("foi")
    times = [(seconds(lambda: engine.step(plain)), seconds(lambda: engine.step(foi))) for _ in range(steps)]
    return {
        "ip2p_ms": round(1000 * statistics.median(a for a, _ in times), 1),
        "foi_ms": round(1000 * statistics.median(b for _, b in times), 1),
        "ratio": round(statistics.median(b / a for a, b in times), 3),
    }


def real_shape(picture: Image.Image, steps: int) -> dict[str, Any]:
    """A model of Stable Diffusion 1.5's shape with random weights at 256x256: operations of a pass, and FoI's step."""
    shape = replace(SD15, unet={**SD15.unet, "sample_size": 32})
    with TemporaryDirectory() as folder:
        write_random_checkpoint(Path(folder), shape, torch.device("cpu"), torch.float16)
        engine = Engine.load(folder, "cpu", "float32")
    return {
        "operations": operations.count(engine._model.unet.source),
        "foi_step": foi_against_ip2p(engine, picture, 1, steps),
    }


@torch.inference_mode()
def unet_rows(engine: Engine, picture: Image.Image, repeats: int) -> dict[str, float]:
    """ms a row of a plain UNet pass of so many rows: why batching wins, or does not."""
    model = engine._model
    state = engine.admit(picture, spec(0))
    one = torch.cat([state.latents, state.image_latents], dim=1)
    given = (one, state.time_shifts[:1], state.instruction_text)
    found = {}
    for rows in (3, 6, 12, 24):
        inputs = [tensor.expand(rows, *tensor.shape[1:]) for tensor in given]
        times = [seconds(lambda given=inputs: model.unet(*given)) for _ in range(repeats)]  # type: ignore[misc]
        found[str(rows)] = round(1000 * statistics.median(times[1:]) / rows, 2)
    return found


def host_time(engine: Engine, picture: Image.Image, steps: int) -> dict[str, dict[str, float]]:
    """ms a step without the UNet. `step`: the sampler's own work (guidance, Euler, bookkeeping) for plain edits, with a
    ready tensor for the UNet's. `loop`: the batching engine around it, from one step to the next."""
    predict, step, found = engine._denoiser.predict, engine.step, {}

    def ready(sample: Tensor, *_: object) -> Tensor:
        return sample[:, : sample.shape[1] // 2]

    def count(states: list[EditState]) -> None:
        marks.append(time.perf_counter())
        for state in states:
            state.step += 1

    try:
        for edits in (1, 4, ALL):
            plan = [spec(seed, method="ip2p", num_inference_steps=steps, strength=1.0) for seed in range(edits)]
            states, marks = [engine.admit(picture, one) for one in plan], list[float]()
            engine._denoiser.predict = ready
            times = [seconds(lambda now=states: step(now)) for _ in range(steps)]  # type: ignore[misc]
            engine._denoiser.predict, engine.step = predict, count  # type: ignore[method-assign]
            batching = BatchingEngine(engine, Capacity(edits, ROOM))
            for ticket in [batching.submit(picture, one) for one in plan]:
                ticket.result.result()
            batching.close()
            gaps = [after - before for before, after in itertools.pairwise(marks)]
            found[str(edits)] = {
                "step_ms": round(1000 * statistics.median(times), 3),
                "loop_ms": round(1000 * statistics.median(gaps), 3),
            }
            engine.step = step  # type: ignore[method-assign]
    finally:
        engine._denoiser.predict, engine.step = predict, step  # type: ignore[method-assign]
    return found


def memory(engine: Engine, edits: int) -> dict[str, float]:
    """Resident MiB after 100 edits and after all."""
    batching, picture, found = BatchingEngine(engine, Capacity(4, ROOM)), Image.open(PICTURE).convert("RGB"), {}
    picture = picture.resize((64, 64))
    for begun in range(0, edits, 4):
        for ticket in [batching.submit(picture, spec(begun + i, num_inference_steps=2)) for i in range(4)]:
            ticket.result.result()
        if (begun + 4) in (100, edits):
            found[str(begun + 4)] = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20
            _say(f"{begun + 4} edits: {found[str(begun + 4)]:.1f} MiB")
    batching.close()
    return found


def stops(engine: Engine, picture: Image.Image, trials: int) -> int:
    """The most steps that an edit still took after it was stopped."""
    batching, most = BatchingEngine(engine, Capacity(1, ROOM)), 0
    for seed in range(trials):
        ticket = batching.submit(picture, spec(seed, num_inference_steps=150))
        while ticket.progress.step < 1 + seed % 4:
            time.sleep(0.001)
        at = ticket.progress.step
        ticket.stop(EditCanceled("enough"))
        ticket.result.exception()
        most = max(most, ticket.progress.step - at)
    batching.close()
    return most


def table(report: dict[str, Any]) -> str:
    ratio, memory, host = report["throughput"]["ratio"], report["memory_mib"], report["host_ms"]
    together, alone = (
        statistics.median(report["throughput"][f"{name}_edits_per_s"]) for name in ("together", "one_by_one")
    )
    first, last = memory.values()
    real, demo = report["real_shape"], report["foi_step"]
    counted = real["operations"]

    def share(name: str) -> str:
        return f"{counted[name]} ({counted[name] / counted['stock']:.2f})"

    def step(of: dict[str, float]) -> str:
        return f"{of['ratio']:.3f} ({of['foi_ms']:.1f} / {of['ip2p_ms']:.1f} ms)"

    rows = [
        ("operations of a pass: diffusers' UNet", str(counted["stock"])),
        ("ours, IP2P", share("ip2p")),
        ("ours, FoI, modulation one kernel a layer (CUDA)", share("foi")),
        ("ours, FoI, modulation spelled out (CPU)", share("foi_spelled_out")),
        *((f"FoI step / IP2P step, demo, in flight: {n}", step(of)) for n, of in demo.items()),
        ("FoI step / IP2P step, SD 1.5's shape, 256x256", step(real["foi_step"])),
        ("eight edits together, edits/s", f"{together:.2f}"),
        ("the same one by one, edits/s", f"{alone:.2f}"),
        ("together against one by one", f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"),
        *((f"UNet, ms a row of {rows}", f"{ms:.2f}") for rows, ms in report["unet_ms_a_row"].items()),
        *((f"sampler's own work, ms a step of {n} edits", f"{of['step_ms']:.3f}") for n, of in host.items()),
        *((f"the loop around it, ms a step of {n} edits", f"{of['loop_ms']:.3f}") for n, of in host.items()),
        (f"memory after {' and '.join(memory)} edits, MiB", f"{first:.0f}, {last:.0f} ({last / first - 1:+.1%})"),
        ("most steps after a stop", str(report["steps_after_stop"])),
    ]
    lines = [f"| {name} | {value} |" for name, value in rows]
    device = "; ".join(f"{name}: {value}" for name, value in report["machine"].items())
    return "\n".join(["# The engine alone, on a CPU", "", f"{device}.", "", "| | |", "| :--- | ---: |", *lines, ""])


def draw(report: dict[str, Any], path: Path) -> None:
    """Where batching's win comes from, and where the host's time goes."""
    figure = Figure((9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = report["unet_ms_a_row"]
    left.bar(rows.keys(), rows.values(), color="#0072b2")
    left.set(xlabel="rows in the batch", ylabel="UNet, ms a row", title="a pass of the UNet")
    edits, bottom = list(report["host_ms"]), [of["step_ms"] for of in report["host_ms"].values()]
    right.bar(edits, bottom, color="#d55e00", label="sampler")
    right.bar(edits, [of["loop_ms"] for of in report["host_ms"].values()], bottom=bottom, label="loop")
    right.set(xlabel="edits in flight", ylabel="ms a step", title="beside the UNet")
    right.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.host", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--edits", type=int, default=1000, help="for the memory")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    engine, picture = Engine.load("demo"), Image.open(PICTURE).convert("RGB")
    engine.warm_up()
    report: dict[str, Any] = {"machine": describe(), "steps": arguments.steps, "edits": arguments.edits}
    _say("FoI against IP2P")
    report["foi_step"] = {str(n): foi_against_ip2p(engine, picture, n, 60) for n in (1, 4)}
    _say("throughput")
    report["throughput"] = throughput(engine, picture, arguments.repeats, arguments.steps)
    _say("rows, host time, stops")
    report["unet_ms_a_row"] = unet_rows(engine, picture, 6)
    report["host_ms"] = host_time(engine, picture, 100)
    report["steps_after_stop"] = stops(engine, picture, 20)
    _say("memory")
    report["memory_mib"] = memory(engine, arguments.edits)
    _say("Stable Diffusion 1.5's shape")  # the last: what it leaves behind is no edit's memory
    report["real_shape"] = real_shape(picture, arguments.repeats)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "host.json").write_text(json.dumps(report, indent=1) + "\n")
    (arguments.out / "host.md").write_text(table(report))
    draw(report, arguments.out / "host.png")
    print(table(report))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
