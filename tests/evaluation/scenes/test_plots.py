"""The figures: each is a picture of the promised width that shows what it was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evaluation.scenes import plots
from evaluation.scenes.columns import PSNR_LATENT
from evaluation.scenes.directions import TABLE_3, TABLE_4
from tests.evaluation.scenes.made_up import record


def records(row: str, psnr: float, masks: bool = True) -> list[dict[str, Any]]:
    kinds = ["recolour", "sky", "sky sun", "remove hat"]
    return [
        record(row, case, of_case, [0.1 * case] * len(of_case.split()), psnr=psnr + case)
        | ({"iou": [0.2 * case] * len(of_case.split())} if masks else {})
        for case, of_case in enumerate(kinds)
    ]


def pixels(path: Path) -> np.ndarray:
    picture = Image.open(path).convert("RGB")
    assert picture.width == 1440  # 9 inches at 160 dpi
    return np.asarray(picture)


def shows(path: Path, colour: str) -> bool:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((pixels(path) == wanted).all(axis=-1).any())


def test_curves_have_a_line_for_each_method(tmp_path: Path) -> None:
    methods = {"IP2P": 30.0, "FoI": 33.0, "default": 36.0}
    by_guidance = {name: {s: records(name, psnr - s) for s in (2.5, 7.5)} for name, psnr in methods.items()}
    plots.curves(by_guidance, tmp_path / "new" / "curves.png")
    assert all(shows(tmp_path / "new" / "curves.png", colour) for colour, _ in plots.LINES[:3])


def test_more_methods_than_colours_still_make_a_picture(tmp_path: Path) -> None:
    plots.curves({f"method {i}": {7.5: records("x", 30.0 + i)} for i in range(9)}, tmp_path / "curves.png")
    assert shows(tmp_path / "curves.png", plots.BLUE)


def test_sweeps_show_success_preservation_and_the_papers_numbers(tmp_path: Path) -> None:
    names = {setting: [f"{setting} {i}" for i in range(5)] for setting in ("mask at step", "modulation until step")}
    all_records = [r for of in names.values() for i, name in enumerate(of) for r in records(name, 30.0 + i)]
    panels = {setting: (sweep, names[setting]) for setting, sweep in zip(names, (TABLE_3, TABLE_4), strict=True)}
    plots.sweeps(all_records, panels, tmp_path / "sweeps.png")
    assert all(shows(tmp_path / "sweeps.png", colour) for colour in (plots.BLUE, plots.ORANGE, plots.GREY))


def test_bars_are_taller_for_more_rows(tmp_path: Path) -> None:
    few, many = tmp_path / "few.png", tmp_path / "many.png"
    plots.bars(records("A", 30.0), few)
    plots.bars([r for row in "ABCDEF" for r in records(row, 30.0)], many, list("FEDCBA"), PSNR_LATENT)
    assert pixels(few).shape[0] < pixels(many).shape[0]


def test_a_row_without_masks_leaves_its_panel_of_ious_empty(tmp_path: Path) -> None:
    plots.ious(records("A", 30.0) + records("B", 30.0, masks=False), ["A", "B"], tmp_path / "ious.png")
    left, right = np.split(pixels(tmp_path / "ious.png"), 2, axis=1)
    orange = [0xD5, 0x5E, 0x00]
    assert (left == orange).all(axis=-1).any()
    assert not (right == orange).all(axis=-1).any()


def test_interference_matrices_share_one_scale(tmp_path: Path) -> None:
    matrices = {"strong": np.diag([60.0, 6.0]), "weak": np.array([[6.0, 0.0], [np.nan, np.nan]])}
    plots.interference(matrices, tmp_path / "matrices.png")
    left, right = np.split(pixels(tmp_path / "matrices.png"), 2, axis=1)
    dark = [0x08, 0x30, 0x6B]  # the darkest of "Blues"
    assert (left == dark).all(axis=-1).any()
    assert not (right == dark).all(axis=-1).any()


def test_a_gallery_shows_pictures_as_they_are_and_full_masks_as_white(tmp_path: Path) -> None:
    red = np.full((16, 16, 3), [200.0, 10.0, 30.0])
    full, grey = np.ones((16, 16), dtype=bool), np.full((16, 16), 77, dtype=np.uint8)
    rows: list[list[plots.Cell]] = [
        [("a long caption that needs more than one line", red), ("mask", full)],
        [("", grey)],
    ]
    plots.gallery(rows, tmp_path / "gallery.png")
    found = pixels(tmp_path / "gallery.png")
    height, width = found.shape[:2]
    side = width // 2
    assert found[height - side - side // 2, side // 2].tolist() == [200, 10, 30]
    assert found[height - side - side // 2, side + side // 2].tolist() == [255, 255, 255]
    assert found[height - side // 2, side // 2].tolist() == [77, 77, 77]
    assert (found[height - side // 2, side + side // 2] == 255).all()
