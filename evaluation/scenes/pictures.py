"""What the tables cannot show: edits that succeed and edits that fail, and which instruction changed which region."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

from demo.data import REPORTED_SEED
from demo.sheet import tinted
from evaluation.scenes import metrics, plots
from evaluation.scenes.cases import Case, cases
from evaluation.scenes.results import Record
from evaluation.scenes.rows import BEST, FAITHFUL, FOI, IP2P, Row
from evaluation.scenes.run import Task, delivered, edits
from foi_core.engine import Engine

SHOWN = 4
COMPARED = (IP2P, FOI, BEST)
INTERFERENCE_CASES = 20


def galleries(engine: Engine, records: Iterable[Record], chosen: list[Case], folder: Path) -> None:
    """successes.png and failures.png: the first SHOWN cases, as varied in k as there are, that the default did or did
    not do whole (first seed)."""
    done = {
        r["case"]: all(e is not None and e < metrics.SUCCESS for e in r["errors"])
        for r in records
        if r["row"] == BEST.name and r["sample"] == 0
    }
    for name, wanted in (("successes", True), ("failures", False)):
        found = [case for case in chosen if done.get(case.seed) is wanted]
        by_k = [[case for case in found if len(case.edits) == k] for k in (1, 2, 3, 4)]
        varied = [case for turn in zip_longest(*by_k) for case in turn if case is not None]
        plots.gallery([_line(engine, case) for case in varied[:SHOWN]], folder / f"{name}.png")


def _line(engine: Engine, case: Case) -> list[tuple[str, np.ndarray]]:
    wanted = [Task(row, case, 0) for row in (FAITHFUL, *COMPARED)]
    done = {task.row.name: (task, result) for task, result in edits(engine, wanted)}
    line: list[tuple[str, np.ndarray]] = [("; ".join(case.texts), case.source.astype(float))]
    shown = tinted(Image.fromarray(case.source), done[BEST.name][1].masks)
    line.append(("default's masks", np.asarray(shown, float)))
    line += [(row.name, delivered(*done[row.name])) for row in (IP2P, FAITHFUL, FOI, BEST)]
    return [*line, ("truth", case.target.astype(float))]


def interference(engine: Engine, folder: Path) -> dict[str, np.ndarray]:
    """By row: the mean over cases of three instructions of |the whole edit - it without instruction j| in region i."""
    chosen = cases(REPORTED_SEED, {3: INTERFERENCE_CASES})
    matrices = {row.name: _mean_matrix(engine, row, chosen) for row in COMPARED}
    plots.interference(matrices, folder / "interference.png")
    return matrices


def _mean_matrix(engine: Engine, row: Row, chosen: list[Case]) -> np.ndarray:
    variants: list[Task] = []
    for case in chosen:
        without = [replace(case, edits=case.edits[:j] + case.edits[j + 1 :]) for j in range(len(case.edits))]
        variants += [Task(row, variant, 0) for variant in (case, *without)]
    pictures = {id(task.case): delivered(task, result) for task, result in edits(engine, variants)}
    each = []
    for at in range(0, len(variants), 4):
        full, *parts = (pictures[id(task.case)] for task in variants[at : at + 4])
        each.append(metrics.interference(full, parts, variants[at].case.regions))
    return np.asarray(np.nanmean(each, axis=0))
