"""Running rows over cases, with the demo model."""

from pathlib import Path

import numpy as np
import pytest

from demo.data import TUNING_SEED
from evaluation.scenes import rows
from evaluation.scenes.__main__ import watch_self_attention
from evaluation.scenes.cases import Case, cases
from evaluation.scenes.run import IN_FLIGHT, STEPS, Task, edits, read, run
from foi_core.engine import Engine

RUN = STEPS * 8 // 10


@pytest.fixture(scope="module")
def engine() -> Engine:
    engine = Engine.load("demo", "cpu")
    watch_self_attention(engine)
    return engine


@pytest.fixture(scope="module")
def two() -> list[Case]:
    return cases(TUNING_SEED, {1: 1, 2: 1})


def test_a_run_that_was_cut_off_goes_on_and_repeats_nothing(engine: Engine, two: list[Case], tmp_path: Path) -> None:
    path = tmp_path / "deep" / "records.jsonl"
    tasks = [Task(row, case, 0) for row in (rows.NOTHING, rows.IP2P) for case in two]
    whole = run(engine, tasks, path, quiet=True)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + lines[2][:40])
    assert [r["row"] for r in read(path)] == ["no edit"] * 2
    before = path.read_text()
    again = run(engine, tasks, path, quiet=True)
    assert path.read_text().startswith(before)
    assert len(path.read_text().splitlines()) == 4
    assert again[:3] == whole[:3]
    assert again[3]["errors"] == pytest.approx(whole[3]["errors"], abs=0.01)  # alone in its batch this time


@pytest.mark.parametrize("row", rows.ALL, ids=lambda row: row.name)
def test_every_row_of_the_tables_can_be_run(engine: Engine, two: list[Case], row: rows.Row, tmp_path: Path) -> None:
    (record,) = run(engine, [Task(row, two[1], 0)], tmp_path / "r.jsonl", quiet=True)
    assert len(record["errors"]) == 2
    assert all(error is not None for error in record["errors"])
    if row is rows.NOTHING:
        assert record["unet_rows"] == 0
        assert record["errors"] == [1.0, 1.0]
    else:
        apart = 2 if row.recipe is not None and row.recipe.apart else 0
        diffedit = 2 * 10 * 2 if row.masks == "diffedit" else 0
        assert record["unet_rows"] == 3 * RUN * (2 if row.one_by_one else 1) + apart + diffedit
    if row.masks == "true":
        assert record["iou"] == [1.0, 1.0]


def test_an_edit_is_the_same_alone_and_among_others(engine: Engine, two: list[Case]) -> None:
    mixed = [Task(row, case, i) for i in range(3) for row in (rows.BEST, rows.FOI, rows.SEQUENTIAL) for case in two]
    assert len(mixed) > IN_FLIGHT  # some join while others run
    together = {task.key: result for task, result in edits(engine, mixed)}
    for task in mixed[:6]:
        ((_, alone),) = edits(engine, [task])
        difference = np.asarray(alone.image, int) - np.asarray(together[task.key].image, int)
        assert np.abs(difference).max() <= 1


def test_every_row_edits_with_the_same_seed(engine: Engine, two: list[Case]) -> None:
    results = [
        result for _, result in edits(engine, [Task(row, two[1], 2) for row in (rows.IP2P, rows.FOI, rows.BEST)])
    ]
    assert len({result.seed for result in results}) == 1
    assert results[0].seed != next(iter(edits(engine, [Task(rows.IP2P, two[1], 1)])))[1].seed
