"""The tables: each number is the one that its heading promises."""

from __future__ import annotations

import pytest

from evaluation.scenes import columns, tables
from tests.evaluation.scenes.made_up import record


def cells(table: str) -> list[list[str]]:
    """The header and the lines of the tables in a Markdown text."""
    lines = [line for line in table.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def line(table: str, name: str, block: int = 0) -> dict[str, str]:
    """What stands under each heading in the line called `name`, in the table number `block` that has one."""
    header: list[str] = []
    found = []
    for text in table.splitlines():
        if not text.startswith("|"):
            header = []
        elif not header:
            header = cells(text)[0]
        elif cells(text) and cells(text)[0][0] == name:
            found.append(dict(zip(header, cells(text)[0], strict=True)))
    return found[block]


def test_an_estimate_stands_before_its_interval() -> None:
    # Two scenes: a resample's success is 0, 50 or 100 %.
    records = [record("A", 1, "sky", [0.1]), record("A", 2, "sky", [0.9])]
    assert columns.ONE_EDIT.text(records) == "50 [0, 100]"
    assert columns.Column("x", lambda r: [r["case"] / 10], digits=2).text(records) == "0.15 [0.10, 0.20]"


def test_an_interval_without_width_is_not_written() -> None:
    assert columns.UNET_ROWS.text([record("A", 1, "sky", [0.1])]) == "240"


def test_a_column_without_values_shows_a_dash() -> None:
    assert columns.IOU.text([record("A", 1, "sky", [0.1])]) == "–"
    assert columns.LEAKAGE.text([record("A", 1, "sky", [0.1], leakage=None)]) == "–"


def test_success_is_an_error_below_a_half() -> None:
    records = [record("A", 1, "sky", [0.499]), record("A", 1, "sky", [0.5])]
    assert columns.ONE_EDIT.interval(records)[0] == 50


def test_all_are_done_only_if_every_instruction_that_can_be_judged_is() -> None:
    records = [
        record("A", 1, "sky sun", [0.1, 0.2]),
        record("A", 2, "sky sun", [0.1, 0.7]),
        record("A", 3, "sky sun", [0.1, None]),
        record("A", 4, "sky sun", [None, None]),
        record("A", 5, "sky", [0.9]),
    ]
    assert columns.ALL_OF_MANY.interval(records)[0] == pytest.approx(100 * 2 / 3)
    assert columns.EACH_OF_MANY.interval(records)[0] == pytest.approx(100 * 4 / 5)
    assert columns.ONE_EDIT.interval(records)[0] == 0


def test_the_main_table_counts_each_number_of_edits_apart() -> None:
    records = [
        record("A", 1, "sky", [0.1]),
        record("A", 2, "sky sun", [0.1, 0.9]),
        record("A", 3, "sky sun hat", [0.1, 0.2, 0.3]),
        record("A", 4, "sky sun hat ground", [0.1, 0.2, 0.3, 0.9]),
    ]
    asked = line(tables.main_table(records), "A")
    assert [asked[f"all of {k}, %"] for k in (2, 3, 4)] == ["0", "100", "0"]
    assert asked["one edit, %"] == "100"
    assert asked["each of k ≥ 2, %"].startswith("78 [")  # 7 of 9


def test_the_main_table_has_mask_ious_of_single_edits_by_what_is_edited() -> None:
    records = [
        record("A", 1, "recolour", [0.1], iou=[0.2], auprc=[0.5], boundary=[1.0]),
        record("A", 1, "remove", [0.1], iou=[0.3], auprc=[None], boundary=[0.0]),
        record("A", 1, "replace", [0.1], iou=[0.9], auprc=[0.5], boundary=[0.5]),
        record("A", 1, "hat", [0.1], iou=[0.0], auprc=[0.5], boundary=[0.5]),
        record("A", 1, "sky", [0.1], iou=[0.8], auprc=[0.5], boundary=[0.5]),
        record("A", 1, "ground sky", [0.1, 0.1], iou=[0.0, 0.0], auprc=[1.0, 0.0], boundary=[0.5, 0.5]),
    ]
    masks = line(tables.main_table(records), "A", block=2)
    assert (masks["IoU, object"], masks["IoU, sky"], masks["IoU, ground"]) == ("0.30", "0.80", "–")
    assert (masks["AUPRC"], masks["boundary F"]) == ("0.50", "0.50")


def test_the_main_table_tells_what_is_delivered_from_what_the_sampler_gave() -> None:
    outside = {"mae": 0.0, "psnr": 68.1, "max": 0.0}
    free, latent = {"mae": 3.0, "psnr": 25.04, "max": 80.0}, {"mae": 1.0, "psnr": 31.26, "max": 40.0}
    far = {"mae": 0.5, "psnr": 40.0, "max": 9.0}
    given = {"outside": outside, "outside_free": free, "outside_vae": latent, "outside_far": far}
    records = [record("A", 1, "sky", [0.1], **given)]
    rest = line(tables.main_table(records), "A", block=1)
    assert list(rest.values()) == ["A", "68.1", "0", "2.0", "25.0", "31.3", "40.0", "0.125"]


def test_every_part_of_the_main_table_has_at_most_ten_columns() -> None:
    assert max(len(header) for header in cells(tables.main_table([record("A", 1, "sky", [0.1])]))) <= 10


def test_rows_stand_in_the_order_asked_for_and_a_missing_one_is_named() -> None:
    records = [record(row, 1, "sky", [0.1]) for row in ("A", "B", "C")]
    assert list(tables.by_row(records)) == ["A", "B", "C"]
    assert list(tables.by_row(records, ["C", "A"])) == ["C", "A"]
    with pytest.raises(ValueError, match="no record of the rows 'D'"):
        tables.by_row(records, ["A", "D"])


def test_a_bar_in_a_rows_name_does_not_break_its_line() -> None:
    assert tables.markdown(["", "x"], [["a|b", "1"]]).splitlines()[-1] == "| a\\|b | 1 |"


def test_kinds_are_those_of_single_edits_with_their_number_of_scenes() -> None:
    records = [
        record("A", 1, "sun", [0.1], iou=[0.5]),
        record("A", 1, "sun", [0.9], iou=[0.7], sample=1),
        record("A", 2, "sky", [0.1], iou=[0.9]),
        record("A", 3, "sky sun", [0.9, 0.9], iou=[0.0, 0.0]),
        record("B", 2, "sky", [0.9]),
    ]
    table = tables.by_kind_table(records, ["A", "B"])
    assert line(table, "A") == {"(scenes)": "A", "sun (1)": "50", "sky (1)": "100"}
    assert line(table, "B") == {"(scenes)": "B", "sun (1)": "–", "sky (1)": "0"}
    assert line(table, "A", block=1) == {"(scenes)": "A", "sun (1)": "0.60", "sky (1)": "0.90"}
    assert [cells[0] for cells in cells(table)].count("B") == 1  # B has no masks


def test_each_number_of_edits_is_a_column() -> None:
    records = [record("A", 1, "sky", [0.1], psnr=40.0), record("A", 2, "sky sun", [0.1, 0.9], psnr=20.0)]
    table = tables.by_k_table(records, ["A"])
    done, each, kept = (line(table, "A", block) for block in range(3))
    assert (done["k = 1 (1)"], done["k = 2 (1)"]) == ("100", "0")
    assert (each["k = 1 (1)"], each["k = 2 (1)"]) == ("100", "50")
    assert (kept["k = 1 (1)"], kept["k = 2 (1)"]) == ("40.0", "20.0")


def test_objects_of_18_and_21_pixels_are_in_the_middle() -> None:
    sizes = {1: 17.9, 2: 18.0, 3: 21.0, 4: 21.1, 5: None}
    records = [record("A", case, "hat", [0.1 if case in (2, 3) else 0.9], size=size) for case, size in sizes.items()]
    done = line(tables.by_size_table(records, ["A"]), "A")
    assert done == {"(scenes)": "A", "radius < 18 px (1)": "0", "18–21 px (2)": "100", "> 21 px (1)": "0"}


def test_twins_are_compared_among_edits_of_one_object_only() -> None:
    records = [
        record("A", 1, "recolour", [0.1], size=20.0, has_twin=False, iou=[0.9]),
        record("A", 2, "recolour", [0.9], size=20.0, has_twin=True, iou=[0.4]),
        record("A", 3, "sky", [0.9], size=None, has_twin=False, iou=[0.1]),
    ]
    table = tables.twin_table(records, ["A"])
    assert list(line(table, "A").values()) == ["A", "100", "0"]
    assert list(line(table, "A", block=1).values()) == ["A", "0.90", "0.40"]


def test_a_paired_difference_is_over_the_edits_that_both_made() -> None:
    ours = [record("A", case, "sky", [0.1], psnr=33.0) for case in range(21)]
    theirs = [record("B", case, "sky", [0.9], psnr=30.0) for case in range(20)] + [record("B", 99, "sky", [0.1])]
    found = line(tables.paired_table(ours + theirs, "B", ["A"]), "A")
    assert found["one edit, %"] == "+100 [+100, +100], p < 0.001"  # 2 of 2^20 sign patterns go as far
    assert found["PSNR before compositing, to the picture, dB"].startswith("+3.0 [+3.0, +3.0], p ")
    assert found["all of k ≥ 2, %"] == "–"
    assert found["IoU"] == "–"


def test_a_paired_difference_of_no_size_is_not_signed_and_not_significant() -> None:
    records = [record(row, case, "sky", [0.1], iou=[0.5]) for row in "AB" for case in range(3)]
    found = line(tables.paired_table(records, "B", ["A"]), "A")
    assert found["one edit, %"] == "+0 [+0, +0], p = 1.000"
    assert found["IoU"] == "+0.00 [+0.00, +0.00], p = 1.000"


def test_pairs_go_instruction_by_instruction_and_seed_by_seed() -> None:
    ours = [record("A", 1, "sky sun", [0.1, 0.1], sample=s, iou=[0.5, 0.9]) for s in (0, 1)]
    theirs = [record("B", 1, "sky sun", [0.1, 0.1], sample=s, iou=[0.4 + 0.4 * s, None]) for s in (1, 0)]
    # Differences: 0.5 - 0.4, 0.5 - 0.8; the second instruction of B has none.
    assert tables.difference(ours, theirs, columns.IOU).startswith("-0.10 [-0.10, -0.10], p = ")
