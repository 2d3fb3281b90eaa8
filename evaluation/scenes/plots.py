"""The report's figures, as PNGs to be shown 900 pixels wide. Intervals are those of the tables (see `columns`).

Each function writes one picture to `path`. Colours are ones that colour-blind readers can tell apart.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import patheffects, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.scenes.columns import ALL, ALL_OF_MANY, IOU, PSNR, PSNR_FAR, Column, single
from evaluation.scenes.directions import Numbers, Sweep
from evaluation.scenes.results import Record
from evaluation.scenes.tables import KINDS, by_row

WIDTH = 9.0  # inches
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#767676"
LINES = (
    (BLUE, "o"),
    (ORANGE, "s"),
    ("#00805e", "^"),
    ("#b0508a", "D"),
    ("#7a5f00", "v"),
    ("#000000", "P"),
    ("#3f97c9", "X"),
)
STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
}
Cell = tuple[str, np.ndarray]


@rc_context(STYLE)
def curves(methods: Mapping[str, Mapping[float, Sequence[Record]]], path: Path) -> None:
    """Preservation against success, a line for each method, a point for each text guidance s_T.

    Up and to the right is better.
    """
    figure = _figure(5.6)
    axis = figure.subplots()
    ends = []
    for (colour, marker), (method, by_guidance) in zip(cycle(LINES), methods.items(), strict=False):
        guidance = sorted(by_guidance)
        done, kept = (_intervals(column, [by_guidance[s] for s in guidance]) for column in (ALL, PSNR_FAR))
        axis.plot(done[0], kept[0], marker=marker, color=colour, linewidth=2, markersize=6)
        axis.errorbar(done[0], kept[0], _ends(kept), _ends(done), fmt="none", ecolor=colour, alpha=0.4)
        for i, s in enumerate(guidance):
            last = i == len(guidance) - 1
            place = (-5, -14) if last else (5, 5)
            _note(axis, f"{s:g}", done[0][i], kept[0][i], colour, place, fontsize=9, ha="right" if last else "left")
        ends.append((method, done[0][-1], kept[0][-1], colour))
    axis.set_xlabel("edits with everything done, %  (at the points: text guidance $s_T$)")
    axis.set_ylabel("PSNR away from the regions, dB (median)")
    axis.margins(0.08)
    _name_lines(axis, ends)
    _save(figure, path)


@rc_context(STYLE)
def sweeps(records: Sequence[Record], panels: Mapping[str, tuple[Sweep, Sequence[str]]], path: Path) -> None:
    """For each setting (its name on the axis) success and preservation, with the paper's numbers in grey on the right.

    A panel's rows are ours for each of the values of the paper's sweep. Only directions can be compared.
    """
    figure = _figure(5.4)
    grid = figure.subplots(2, len(panels), sharex="col", squeeze=False)
    for column, (setting, (sweep, names)) in enumerate(panels.items()):
        rows = list(by_row(records, names).values())
        above, below = grid[0][column], grid[1][column]
        _band(above, _intervals(ALL, rows), BLUE)
        _band(below, _intervals(PSNR_FAR, rows), ORANGE)
        _paper(above, *next(iter(sweep.obedience.items())))
        _paper(below, *next(iter(sweep.preservation.items())))
        above.set_title(sweep.table)
        below.set_xticks(range(len(names)), sweep.values)
        below.set_xlabel(setting)
    grid[0][0].set_ylabel("everything done, %", color=BLUE)
    grid[1][0].set_ylabel("PSNR away from the regions, dB", color=ORANGE)
    _save(figure, path)


@rc_context(STYLE)
def bars(
    records: Sequence[Record], path: Path, names: Sequence[str] | None = None, preservation: Column = PSNR
) -> None:
    """Each row's success with several instructions, as a bar, and its preservation, as a point: dB have no zero."""
    rows = by_row(records, names)
    places = np.arange(len(rows))
    figure = _figure(1.0 + 0.32 * len(rows))
    left, right = figure.subplots(1, 2, sharey=True)
    for axis, column, colour in ((left, ALL_OF_MANY, BLUE), (right, preservation, ORANGE)):
        numbers = _intervals(column, list(rows.values()))
        if axis is left:
            axis.barh(places, numbers[0], height=0.7, color=colour, alpha=0.35)
        axis.errorbar(numbers[0], places, xerr=_ends(numbers), fmt="o", color=colour, markersize=4, capsize=2)
        for place, (estimate, _, high) in zip(places, numbers.T, strict=True):
            if not np.isnan(estimate):
                text = f"{estimate:.{column.digits}f}"
                _note(axis, text, high, float(place), colour, (5, 0), va="center_baseline", fontsize=9)
        axis.set_xlabel(column.title)
        axis.margins(x=0.16)
        axis.grid(visible=False, axis="y")
    left.set_yticks(places, list(rows))
    left.set_xlim(0, 108)
    left.set_ylim(len(rows) - 0.5, -0.5)
    _save(figure, path)


@rc_context(STYLE)
def ious(records: Sequence[Record], names: Sequence[str], path: Path) -> None:
    """The mask IoU of every single edit as a point, by kind of edit, and its median as a bar: a panel for each row."""
    rows = by_row((record for record in records if single(record)), names)
    present = {record["kinds"][0] for of_row in rows.values() for record in of_row}
    kinds = [kind for kind in KINDS if kind in present]
    figure = _figure(1.2 + 0.45 * len(kinds))
    panels = figure.subplots(1, len(rows), sharey=True, squeeze=False)[0]
    for axis, (name, of_row) in zip(panels, rows.items(), strict=True):
        for place, kind in enumerate(kinds):
            found = [value for record in of_row if record["kinds"][0] == kind for value in IOU.values(record)]
            _strip(axis, np.array([value for value in found if value is not None]), place)
        axis.set_title(name, loc="left")
        axis.set_xlim(-0.02, 1.02)
        axis.set_xticks([0, 0.5, 1])
        axis.set_xlabel("mask IoU")
        axis.set_yticks(range(len(kinds)), kinds)
        axis.set_ylim(len(kinds) - 0.5, -0.5)
    _save(figure, path)


@rc_context(STYLE | {"axes.grid": False})
def interference(matrices: Mapping[str, np.ndarray], path: Path) -> None:
    """How much an instruction (columns) changes a region (rows), in grey levels: a (k, k) matrix for each method."""
    top = float(np.nanmax([np.nanmax(matrix) for matrix in matrices.values()]))
    figure = _figure(0.8 + 0.9 * WIDTH / max(len(matrices), 2))
    panels = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axis, (name, matrix) in zip(panels, matrices.items(), strict=True):
        axis.imshow(matrix, cmap="Blues", vmin=0, vmax=top)
        for (row, column), value in np.ndenumerate(matrix):
            text = "–" if np.isnan(value) else f"{value:.1f}"
            axis.text(column, row, text, ha="center", va="center", color="white" if value > 0.6 * top else "black")
        numbers = [str(i + 1) for i in range(len(matrix))]
        axis.set_xticks(range(len(matrix)), numbers)
        axis.set_yticks(range(len(matrix)), numbers)
        axis.tick_params(length=0)
        axis.set_title(name)
        axis.set_xlabel("by instruction")
    panels[0].set_ylabel("change in the region of")
    _save(figure, path)


def gallery(cells: Sequence[Sequence[Cell]], path: Path) -> None:
    """Pictures (0..255) and masks (bool) in a grid, each with a caption above it; a shorter row is left open."""
    side, size, gap = WIDTH / max(len(row) for row in cells), 9.5, 0.06
    characters = int((side - gap) * 72 / (0.56 * size))
    texts = [[textwrap.fill(caption, characters) for caption, _ in row] for row in cells]
    rooms = [max(text.count("\n") + bool(text) for text in row) * size * 1.25 / 72 + gap for row in texts]
    height = sum(rooms) + side * len(cells)
    figure, bottom = Figure((WIDTH, height)), height
    for row, captions, room in zip(cells, texts, rooms, strict=True):
        bottom -= room + side
        for i, ((_, picture), caption) in enumerate(zip(row, captions, strict=True)):
            left, below, width = i * side + gap / 2, bottom + gap / 2, side - gap
            axis = figure.add_axes((left / WIDTH, below / height, width / WIDTH, width / height))
            pixels = picture * 255 if picture.dtype == bool else np.clip(picture, 0, 255)
            axis.imshow(pixels.astype(np.uint8), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_axis_off()
            axis.set_title(caption, fontsize=size, loc="left", pad=3)
    _save(figure, path)


def _figure(height: float) -> Figure:
    return Figure((WIDTH, height), layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)


def _intervals(column: Column, groups: Sequence[Sequence[Record]]) -> np.ndarray:
    """(3, n): estimate, low and high of each group."""
    return np.array([column.interval(records) for records in groups]).T


def _ends(numbers: np.ndarray) -> np.ndarray:
    """(2, n): how far the interval reaches down and up, as matplotlib's error bars want it."""
    estimate, low, high = numbers
    return np.maximum(0, [estimate - low, high - estimate])


def _note(axis: Axes, text: str, x: float, y: float, colour: str, offset: tuple[float, float], **style: Any) -> None:
    """Text beside a point, readable over lines."""
    halo = [patheffects.withStroke(linewidth=2.5, foreground="white")]
    axis.annotate(text, (x, y), offset, textcoords="offset points", color=colour, path_effects=halo, **style)


def _name_lines(axis: Axes, ends: Sequence[tuple[str, float, float, str]]) -> None:
    """The names (with x, y and colour of a line's end) right of the axis, apart, each with a thin line to its end."""
    bottom, top = axis.get_ylim()
    side, height = axis.get_yaxis_transform(), -np.inf
    for name, x, y, colour in sorted(ends, key=lambda end: end[2]):
        height = max(y, height + 0.05 * (top - bottom))
        axis.text(1.01, height, name, transform=side, color=colour, fontweight="bold", va="center")
        leader = {"arrowstyle": "-", "color": colour, "alpha": 0.5, "linestyle": ":", "shrinkA": 0, "shrinkB": 5}
        axis.annotate("", (x, y), (1.0, height), textcoords=side, arrowprops=leader).set_in_layout(False)


def _band(axis: Axes, numbers: np.ndarray, colour: str) -> None:
    places = np.arange(numbers.shape[1])
    axis.fill_between(places, numbers[1], numbers[2], color=colour, alpha=0.2, linewidth=0)
    axis.plot(places, numbers[0], "o-", color=colour, linewidth=2, markersize=4)
    axis.locator_params(axis="y", nbins=5)


def _paper(axis: Axes, name: str, numbers: Numbers) -> None:
    """The paper's numbers on an axis of their own, in grey."""
    other = axis.twinx()
    other.plot(range(len(numbers)), numbers, "--", color=GREY, linewidth=1)
    other.locator_params(axis="y", nbins=5)
    other.tick_params(colors=GREY, labelsize=9, length=0)
    other.set_ylabel(f"paper's {name}", color=GREY, fontsize=9)
    other.grid(visible=False)


def _strip(axis: Axes, values: np.ndarray, place: int) -> None:
    """Values along a line, scattered across it so that they can be told apart, and their median."""
    if values.size:
        across = place + np.random.default_rng(0).uniform(-0.28, 0.28, len(values))
        axis.scatter(values, across, s=9, color=BLUE, alpha=0.4, linewidths=0)
        axis.plot([np.median(values)] * 2, [place - 0.38, place + 0.38], color=ORANGE, linewidth=2.5)
