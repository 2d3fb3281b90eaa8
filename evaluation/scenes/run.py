"""Runs rows over cases: many edits in one UNet batch; each is written down when it is done, so that a run resumes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from demo.measures import average_precision
from demo.scenes import SIZE
from evaluation.appended import cut_torn_line
from evaluation.ideas.diffedit import NOISES, diffedit_mask
from evaluation.scenes import metrics
from evaluation.scenes.cases import Case
from evaluation.scenes.results import Record, rounded
from evaluation.scenes.rows import Row
from foi_core import EditSpec, SubInstruction, images
from foi_core.engine import Engine
from foi_core.result import EditResult
from foi_core.state import EditState

IN_FLIGHT = 16
STEPS = 10  # of which 8 run


@dataclass(frozen=True)
class Task:
    """One edit: `sample` counts the seeds that every row shares."""

    row: Row
    case: Case
    sample: int

    @property
    def key(self) -> tuple[str, int, int]:
        return self.row.name, self.case.seed, self.sample


def key(record: Record) -> tuple[str, int, int]:
    """Its task's key."""
    return record["row"], record["case"], record["sample"]


def seed_of(case: Case, sample: int) -> int:
    """The edit's own seed: the same for every row."""
    return (case.seed * 16 + sample) % 2**32


def run(engine: Engine, tasks: Iterable[Task], path: Path, quiet: bool = False) -> list[Record]:
    """Every task's record, from `path` (JSON Lines) where it is already there; new ones are appended as they come."""
    done = {key(record): record for record in read(path)}
    wanted = list(tasks)
    missing = [task for task in wanted if task.key not in done]
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        path.open("a") as file,
        tqdm(total=len(missing), unit="edit", disable=quiet, smoothing=0.05, mininterval=1) as bar,
    ):
        for task, record in _records(engine, missing):
            file.write(json.dumps(record) + "\n")
            file.flush()
            done[task.key] = record
            bar.update()
            bar.set_description(task.row.name[:28].ljust(28), refresh=False)
    return [done[task.key] for task in wanted]


def append(path: Path, records: Iterable[Record]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def _records(engine: Engine, tasks: list[Task]) -> Iterator[tuple[Task, Record]]:
    for task in tasks:
        if task.row.nothing:
            yield task, no_edit(engine, task)
    for task, result in edits(engine, (task for task in tasks if not task.row.nothing)):
        yield task, measure(engine, task, result)


def read(path: Path) -> list[Record]:
    """The records of a file; a last line that was cut off is removed from it."""
    cut_torn_line(path)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@dataclass
class _Flight:
    """A task's edit in the batch; of one that goes one by one, `parts` are done at the cost of `rows`."""

    task: Task
    state: EditState
    parts: int = 0
    rows: int = 0


def edits(engine: Engine, tasks: Iterable[Task]) -> Iterator[tuple[Task, EditResult]]:
    """Results before compositing. IN_FLIGHT edits share the UNet's batch; one that is done makes room for the next."""
    waiting = iter(tasks)
    flying: list[_Flight] = []
    while True:
        while len(flying) < IN_FLIGHT and (task := next(waiting, None)):
            flying.append(_Flight(task, admit(engine, task, task.case.source)))
        if not flying:
            return
        engine.step([flight.state for flight in flying])
        landed = [f for f in flying if f.state.step == f.state.steps]
        flying = [f for f in flying if f.state.step < f.state.steps]
        for flight in landed:
            state = flight.state  # scenes have the model's own size
            result = engine.decode(state).drawn(state.image, [part.mask for part in state.spec.instructions])
            flight.parts += 1
            flight.rows += result.unet_rows
            if flight.task.row.one_by_one and flight.parts < len(flight.task.case.edits):
                flight.state = admit(engine, flight.task, np.asarray(result.image), flight.parts)
                flying.append(flight)
            else:
                yield flight.task, replace(result, unet_rows=flight.rows)


def admit(engine: Engine, task: Task, source: np.ndarray, part: int = 0) -> EditState:
    """The edit of `source`; of a task that goes one by one, its sub-instruction `part` alone."""
    row, case = task.row, task.case
    seed, image = seed_of(case, task.sample), Image.fromarray(source)
    named = row.keywords == "true"
    parts = tuple(SubInstruction(edit.instruction, edit.keyword if named else None) for edit in case.edits)
    parts = (replace(parts[0], intensity=row.intensity), *parts[1:])
    if row.one_by_one:
        parts = parts[part : part + 1]
    if row.masks == "true":
        regions = [Image.fromarray(region.astype(np.uint8) * 255) for region in case.regions]
        parts = tuple(replace(p, mask=mask) for p, mask in zip(parts, regions, strict=True))
    elif row.masks == "diffedit":
        parts = tuple(replace(p, mask=diffedit_mask(engine, image, p, seed)) for p in parts)
    method = "ip2p" if row.recipe is None else "foi"
    settings = {"num_inference_steps": STEPS, **row.settings}
    spec = EditSpec(parts, method=method, seed=seed, preserve_outside_mask=False, **settings)  # type: ignore[arg-type]
    state = engine.admit(image, spec, row.recipe)
    if row.masks == "diffedit":
        state.unet_rows = 2 * NOISES * len(parts)
    return state


def measure(engine: Engine, task: Task, result: EditResult) -> Record:
    """Everything that the tables need to know of one finished edit."""
    case = task.case
    masks = [np.asarray(mask) > 0 for mask in result.masks]
    free = np.asarray(result.image, dtype=float)
    record = _pictures(engine, task, free, delivered(task, result))
    record["unet_rows"] = result.unet_rows
    if masks:
        pairs = list(zip(masks, case.regions, strict=True))
        record["iou"] = rounded([metrics.iou(mask, truth) for mask, truth in pairs])
        record["boundary"] = rounded([metrics.boundary_f(mask, truth) for mask, truth in pairs])
        soft = zip(result.attention_maps, case.regions, strict=True)
        record["auprc"] = rounded([None if m is None else average_precision(_fine(m), r) for m, r in soft])
    return record


def delivered(task: Task, result: EditResult) -> np.ndarray:
    """The picture that a caller gets: after compositing, (128, 128, 3) in 0..255."""
    recipe, image = task.row.recipe, result.image
    if recipe is not None and result.masks:
        image = recipe.compositor(image, Image.fromarray(task.case.source), images.union(list(result.masks)))
    return np.asarray(image, dtype=float)


def no_edit(engine: Engine, task: Task) -> Record:
    source = task.case.source.astype(float)
    return {**_pictures(engine, task, source, source), "unet_rows": 0}


def _pictures(engine: Engine, task: Task, free: np.ndarray, final: np.ndarray) -> Record:
    """Measures of the result before (`free`) and after compositing."""
    case = task.case
    return {
        "row": task.row.name,
        "case": case.seed,
        "sample": task.sample,
        "kinds": list(case.kinds),
        "errors": rounded([metrics.success_error(final, case.source, case.target, c) for c in case.changed]),
        "errors_free": rounded([metrics.success_error(free, case.source, case.target, c) for c in case.changed]),
        "outside": rounded(metrics.outside(final, case.source, case.union)),
        "outside_free": rounded(metrics.outside(free, case.source, case.union)),
        "outside_vae": rounded(metrics.outside(free, round_trip(engine, case), case.union)),
        "outside_far": rounded(metrics.outside(free, round_trip(engine, case), case.near)),
        "ring": rounded(metrics.ring_error(final, case.target, case.union)),
        "leakage": rounded(metrics.leakage(free, case.source, case.union)),
    }


def round_trip(engine: Engine, case: Case) -> np.ndarray:
    """The picture as the VAE alone gives it back: what no sampler can do better than."""
    cached = case.__dict__.get("round_trip")
    if cached is None:
        cached = case.__dict__["round_trip"] = np.asarray(engine.round_trip(Image.fromarray(case.source)), dtype=float)
    return np.asarray(cached)


def _fine(soft: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(soft.astype(np.float32)).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
