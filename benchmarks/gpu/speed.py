"""Seconds of edits: one alone, a step, several together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from PIL import Image

from benchmarks.gpu import edits
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.subjects import BASELINES, in_flight
from benchmarks.gpu.timing import Work
from foi_core.batching import BatchingEngine
from foi_core.engine import Engine, Execution
from foi_core.spec import EditSpec

TOGETHER = (1, 2, 4, 8)
ALONE = 2
"""Edits that A and C do one after the other in a round of the throughput: their rate does not depend on how many."""


def single(bench: Bench) -> dict[str, Any]:
    """One edit of the native size, from the picture to the edited picture."""
    return _single(bench, bench.settings.sides[0])


def single_large(bench: Bench) -> dict[str, Any]:
    """The same at the larger side."""
    return _single(bench, bench.settings.sides[1])


def _single(bench: Bench, side: int) -> dict[str, Any]:
    """Plain InstructPix2Pix of A, C and each execution of ours; and FoI of ours, which they do not have."""
    picture = edits.picture(side)
    specs = {method: edits.edit(method, bench.settings.steps) for method in ("ip2p", "foi")}
    works = _one_by_one(bench, picture, [specs["ip2p"]])
    for execution in bench.executions:
        for method, spec in specs.items():
            run = partial(_our_edit, bench, execution, picture, spec)
            works[f"{execution} {method}"] = bench.meter.timed(run)
    return {"side": side, **bench.meter.in_turn(works).record()}


def _our_edit(bench: Bench, execution: Execution, picture: Image.Image, spec: EditSpec) -> None:
    bench.subjects.engine(execution, picture.width).edit(picture, spec)


def step(bench: Bench) -> dict[str, Any]:
    """Seconds a step, over all steps of an edit: FoI's, the one that takes the masks included, against plain
    InstructPix2Pix's; alone and four in a batch. Without encoding and decoding."""
    side, execution = bench.settings.sides[0], bench.execution
    engine = bench.subjects.engine(execution, side)
    works: dict[str, Work] = {
        f"{method}, {together} together": partial(_steps, bench, engine, method, together)
        for together in (1, 4)
        for method in ("ip2p", "foi")
    }
    return {"execution": execution, "side": side, **bench.meter.in_turn(works).record()}


def _steps(bench: Bench, engine: Engine, method: str, together: int) -> float:
    picture, steps = edits.picture(bench.settings.sides[0]), bench.settings.steps
    states = [engine.admit(picture, edits.edit(method, steps, seed)) for seed in range(together)]

    def loop() -> None:
        for _ in range(steps):
            engine.step(states)

    return bench.meter.seconds(loop) / steps


def throughput(bench: Bench) -> dict[str, Any]:
    """Seconds an edit of 1, 2, 4 and 8 plain edits that are handed in at once, against A and C one after the other."""
    side, execution = bench.settings.sides[0], bench.execution
    picture, engine = edits.picture(side), bench.subjects.engine(execution, side)
    specs = [edits.edit("ip2p", bench.settings.steps, seed) for seed in range(max(TOGETHER))]
    works = _one_by_one(bench, picture, specs[:ALONE])
    with in_flight(engine, max(TOGETHER)) as batching:
        for together in TOGETHER:
            run = partial(run_together, batching, picture, specs[:together])
            works[f"{together} together"] = partial(_a_piece, bench, run, together)
        timed = bench.meter.in_turn(works)
    return {"execution": execution, "side": side, **timed.record()}


def mixed(bench: Bench) -> dict[str, Any]:
    """Seconds an edit of eight that differ in all settings: together, one by one, and their plain counterparts, with
    the same steps and scales, by A and C."""
    side, execution = bench.settings.sides[0], bench.execution
    picture, engine = edits.picture(side), bench.subjects.engine(execution, side)
    specs = edits.mixed(bench.settings.steps)

    def one_by_one() -> None:
        for spec in specs:
            engine.edit(picture, spec)

    works = _one_by_one(bench, picture, specs)
    with in_flight(engine, len(specs)) as batching:
        works["ours, one by one"] = partial(_a_piece, bench, one_by_one, len(specs))
        run = partial(run_together, batching, picture, specs)
        works["ours, together"] = partial(_a_piece, bench, run, len(specs))
        timed = bench.meter.in_turn(works)
    return {"execution": execution, "side": side, **timed.record()}


def run_together(batching: BatchingEngine, picture: Image.Image, specs: list[EditSpec]) -> list[Image.Image]:
    """All handed in at once; their pictures, as soon as the last is there."""
    tickets = [batching.submit(picture, spec) for spec in specs]
    return [ticket.result.result().drawn(picture).image for ticket in tickets]


def _one_by_one(bench: Bench, picture: Image.Image, specs: list[EditSpec]) -> dict[str, Work]:
    """Seconds an edit of A and C, which are loaded when they first run."""

    def run(name: str) -> None:
        baseline = bench.subjects.baseline(name)
        for spec in specs:
            baseline.edit(picture, spec)

    return {name: partial(_a_piece, bench, partial(run, name), len(specs)) for name in BASELINES}


def _a_piece(bench: Bench, run: Callable[[], object], pieces: int) -> float:
    return bench.meter.seconds(run) / pieces
