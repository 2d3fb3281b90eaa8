"""The table: means, intervals, and PickScore as a preference among the methods."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.pictures.methods import Method
from evaluation.pictures.store import Row
from evaluation.pictures.summary import preferences, tabulate, write_summary


def row(name: str, method: Method, **measures: float) -> Row:
    return Row(name, method, "0", 1.5, (), "", (), {}, measures)


def test_a_mean_stands_with_its_interval_over_the_pictures() -> None:
    table = tabulate([row(str(i), "foi", clip_i=0.8 + 0.2 * (i % 2)) for i in range(20)])
    found = table["foi"]["clip_i"]
    assert found is not None
    mean, low, high, pictures = found
    assert pictures == 20
    assert mean == pytest.approx(0.9)
    assert 0.8 < low < 0.9 < high < 1


def test_pickscore_is_the_softmax_over_the_methods_of_one_picture_without_the_source() -> None:
    rows = [
        row("a", "source", pick_logit=9.0),
        row("a", "ip2p", pick_logit=20.0),
        row("a", "foi", pick_logit=20.0 + math.log(3)),
    ]
    assert preferences(rows) == {("a", "ip2p"): pytest.approx(0.25), ("a", "foi"): pytest.approx(0.75)}


def test_a_picture_that_has_not_all_methods_yet_does_not_count_for_pickscore() -> None:
    rows = [row("a", "ip2p", pick_logit=1.0), row("a", "foi", pick_logit=1.0), row("b", "ip2p", pick_logit=5.0)]
    assert preferences(rows).keys() == {("a", "ip2p"), ("a", "foi")}
    assert not preferences(rows[2:])


def test_columns_that_nobody_has_are_left_out_and_gaps_are_dashes(tmp_path: Path) -> None:
    text = write_summary([row("a", "ip2p", mae_outside=2.0), row("a", "foi", mae_outside=1.0, mask_iou=0.5)], tmp_path)
    assert text.splitlines() == [
        "| method | pictures | MAE outside ↓ | mask IoU ↑ | seconds ↓ |",
        "|---|---|---|---|---|",
        "| ip2p | 1 | 2.00 [2.00, 2.00] | - | 1.50 [1.50, 1.50] |",
        "| foi | 1 | 1.00 [1.00, 1.00] | 0.500 [0.500, 0.500] | 1.50 [1.50, 1.50] |",
        "",
        "Means over the pictures that all methods with numbers in a column have in common: 1.",
    ]


def test_methods_are_averaged_over_the_pictures_that_all_of_them_have(tmp_path: Path) -> None:
    """ "b" failed by diffedit: it would have made ip2p look worse. The source has no seconds, and so no say in them."""
    rows = [replace(row(name, "source", clip_i=1.0), seconds=None) for name in "abc"]
    rows += [row("a", "ip2p", clip_i=0.8), row("b", "ip2p", clip_i=0.2), row("c", "ip2p", clip_i=0.6)]
    rows += [row("a", "diffedit", clip_i=0.7, mask_iou=0.5), row("c", "diffedit", clip_i=0.9)]
    table = tabulate(rows)
    means = {
        method: {name: mean and (mean.mean, mean.pictures) for name, mean in of.items()} for method, of in table.items()
    }
    assert means == {
        "source": {"clip_i": (1.0, 2)},
        "ip2p": {"clip_i": (pytest.approx(0.7), 2), "seconds": (1.5, 2)},
        "diffedit": {"clip_i": (pytest.approx(0.8), 2), "mask_iou": (0.5, 1), "seconds": (1.5, 2)},
    }
    text = write_summary(rows, tmp_path)
    assert "| ip2p | 3 | 0.7000" in text
    assert text.endswith("have in common: CLIP-I 2, mask IoU 1, seconds 2.\n")


def test_without_a_common_picture_there_is_no_mean_and_the_caption_says_so(tmp_path: Path) -> None:
    rows = [row("a", "ip2p", clip_i=0.8), row("b", "foi", clip_i=0.9, mask_iou=0.5)]
    text = write_summary(rows, tmp_path)
    assert "| foi | 1 | - | 0.500 [0.500, 0.500] | - |" in text
    assert text.endswith("have in common: CLIP-I 0, mask IoU 1, seconds 0.\n")
