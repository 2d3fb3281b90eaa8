"""The check on the demo's output finds what a user would mind."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.verify import problems


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A good output: a left and a right region, changed inside and not outside."""
    before = np.full((64, 64, 3), 90, np.uint8)
    after = before.copy()
    for i, columns in enumerate((slice(0, 16), slice(40, 64)), start=1):
        mask = np.zeros((64, 64), np.uint8)
        mask[:, columns] = 255
        after[:, columns] = 200
        Image.fromarray(mask).save(tmp_path / f"mask-{i}.png")
    Image.fromarray(before).save(tmp_path / "input.png")
    Image.fromarray(after).save(tmp_path / "result.png")
    Image.fromarray(after).save(tmp_path / "sheet.png")
    (tmp_path / "summary.json").write_text(json.dumps({"status": "succeeded"}))
    return tmp_path


def test_a_good_output_has_no_problems(output: Path) -> None:
    assert problems(output) == []


def test_a_failed_edit_is_found(output: Path) -> None:
    (output / "summary.json").write_text(json.dumps({"status": "failed"}))
    assert "failed" in problems(output)[0]


def test_an_empty_mask_is_found(output: Path) -> None:
    Image.new("L", (64, 64)).save(output / "mask-2.png")
    assert "mask-2.png is empty" in problems(output)


def test_one_changed_byte_outside_is_found(output: Path) -> None:
    after = np.asarray(Image.open(output / "result.png")).copy()
    after[30, 30, 0] += 1
    Image.fromarray(after).save(output / "result.png")
    assert problems(output) == ["outside the masks the picture changed by up to 1 of 255"]


def test_a_region_that_did_not_change_is_found(output: Path) -> None:
    Image.open(output / "input.png").save(output / "result.png")
    assert len(problems(output)) == 2


def test_a_result_of_another_size_is_found(output: Path) -> None:
    Image.new("RGB", (32, 32)).save(output / "result.png")
    assert "the input" in problems(output)[0]
