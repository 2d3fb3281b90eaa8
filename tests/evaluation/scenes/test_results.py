"""The committed results: nothing that the tables use is lost, and the file stays small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.scenes import results
from evaluation.scenes.cases import cases

META = {"commit": "abc1234", "device": "H200", "seeds": [0, 1, 2], "notes": "größer als ½"}
CASES: list[dict[str, Any]] = [
    {"seed": 100_001, "kinds": ["recolour"], "size": 17.25, "has_twin": True},
    {"seed": 200_003, "kinds": ["sky", "sun"], "size": None, "has_twin": False},
]


def record(row: str, case: int, sample: int, masks: bool = True) -> dict[str, Any]:
    count = 1 if case == 100_001 else 2
    made: dict[str, Any] = {
        "row": row,
        "case": case,
        "sample": sample,
        "errors": [0.1234] * count,
        "outside": {"mae": 1.5, "psnr": 30.12, "max": 255.0},
        "ring": None,
        "unet_rows": 123_456,
        "seconds": 0.001,
    }
    return made | ({"iou": [0.9876] * count, "auprc": [None] * count} if masks else {})


def test_what_is_saved_comes_back_joined_with_its_cases(tmp_path: Path) -> None:
    records = [record("FoI", 100_001, 0), record("FoI", 200_003, 1), record("IP2P", 100_001, 0, masks=False)]
    results.save(tmp_path / "new" / "main.json", records, META, CASES)
    loaded, meta = results.load(tmp_path / "new" / "main.json")
    assert meta == META
    assert loaded == results.joined(records, CASES)
    assert loaded[1] == records[1] | {"kinds": ["sky", "sun"], "size": None, "has_twin": False}
    assert "iou" not in loaded[2]


def test_saving_what_was_loaded_gives_the_same_file(tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    results.save(first, [record("FoI", 100_001, 0), record("FoI", 200_003, 0)], META, CASES)
    loaded, meta = results.load(first)
    results.save(second, loaded, meta, CASES)
    assert second.read_text() == first.read_text()


def test_a_cases_properties_are_kept_once_and_only_of_cases_that_are_used(tmp_path: Path) -> None:
    path = tmp_path / "main.json"
    records = results.joined([record(row, 100_001, sample) for row in "AB" for sample in range(3)], CASES)
    results.save(path, records, META, CASES)
    content = json.loads(path.read_text())
    assert content["cases"] == {"seed": [100_001], "kinds": [["recolour"]], "size": [17.25], "has_twin": [True]}
    assert not {"kinds", "size", "has_twin"} & set(content["rows"]["A"])


def test_records_are_grouped_by_row_in_order_of_appearance(tmp_path: Path) -> None:
    order = [("B", 1), ("A", 0), ("B", 0)]
    results.save(tmp_path / "x.json", [record(row, 100_001, sample) for row, sample in order], META, CASES)
    loaded, _ = results.load(tmp_path / "x.json")
    assert [(r["row"], r["sample"]) for r in loaded] == [("B", 1), ("B", 0), ("A", 0)]


def test_fractions_keep_four_digits_and_whole_numbers_all_of_theirs() -> None:
    value = {"a": [0.123456, 123456.0, float("nan"), None, 1_234_567, True], "b": ("sky", 1e-7)}
    kept = results.rounded(value)
    assert kept == {"a": [0.1235, 123500.0, None, None, 1_234_567, True], "b": ["sky", 1e-7]}
    assert kept["a"][5] is True


def test_records_of_one_row_with_different_fields_are_refused(tmp_path: Path) -> None:
    uneven = [record("FoI", 100_001, 0), record("FoI", 100_001, 1, masks=False)]
    with pytest.raises(ValueError, match="'FoI' differ in their fields"):
        results.save(tmp_path / "x.json", uneven, META, CASES)


def test_fifteen_thousand_edits_take_less_than_four_megabytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    about_cases = [
        {"seed": 300_000 + i, "kinds": ["recolour", "sky"], "size": None, "has_twin": False} for i in range(300)
    ]
    records = [
        {
            "row": f"row {row}",
            "case": 300_000 + i,
            "sample": 0,
            **{name: rng.random(2).tolist() for name in ("errors", "errors_free", "iou", "boundary", "auprc")},
            **{
                name: dict(zip(("mae", "psnr", "max"), (rng.random(3) * 100).tolist(), strict=True))
                for name in ("outside", "outside_free", "outside_vae", "outside_far")
            },
            **dict(zip(("ring", "leakage"), rng.random(2).tolist(), strict=True)),
            "unet_rows": 240,
        }
        for row in range(50)
        for i in range(300)
    ]
    results.save(tmp_path / "big.json", records, META, about_cases)
    assert (tmp_path / "big.json").stat().st_size < 4e6
    assert len(results.load(tmp_path / "big.json")[0]) == 15_000


def test_a_case_is_described_by_what_the_tables_group_by() -> None:
    one, several = cases(10_000_000, {1: 1, 2: 1})
    assert results.about(one) == {
        "seed": one.seed,
        "kinds": [one.edits[0].kind],
        "size": one.object_size,
        "has_twin": one.has_twin,
    }
    assert len(results.about(several)["kinds"]) == 2
    assert results.about(several)["size"] is None
