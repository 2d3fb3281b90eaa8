"""One table from all results: a row for each method, means with 95% bootstrap intervals over the same pictures."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evaluation.pictures.store import Row
from evaluation.scenes.statistics import bootstrap_interval

# In the table's order: the measure, its heading (the arrow says which way is better), its decimals.
COLUMNS = (
    ("clip_i", "CLIP-I ↑", 4),
    ("dino_i", "DINO-I ↑", 4),
    ("clip_d", "CLIP-D ↑", 4),
    ("pickscore", "PickScore ↑", 4),
    ("clip_i_target", "CLIP-I target ↑", 4),
    ("dino_i_target", "DINO-I target ↑", 4),
    ("mae_target", "MAE target ↓", 2),
    ("psnr_target", "PSNR target ↑", 2),
    ("mae_outside", "MAE outside ↓", 2),
    ("psnr_outside", "PSNR outside ↑", 2),
    ("mask_iou", "mask IoU ↑", 3),
    ("seconds", "seconds ↓", 2),
)


class Mean(NamedTuple):
    """A measure's mean over `pictures` pictures, with its 95% interval."""

    mean: float
    low: float
    high: float
    pictures: int


Table = dict[str, dict[str, Mean | None]]  # by method and measure; None where no picture counts


def write_summary(rows: Sequence[Row], folder: Path) -> str:
    """Writes `summary.md` and `summary.json` to `folder`; returns the Markdown."""
    table = tabulate(rows)
    counts = pictures_of(rows)
    text = markdown(table, counts)
    (folder / "summary.md").write_text(text, encoding="utf-8")
    content = {
        method: {"pictures": counts[method]}
        | {name: mean._asdict() for name, mean in means.items() if mean is not None}
        for method, means in table.items()
    }
    (folder / "summary.json").write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return text


def pictures_of(rows: Sequence[Row]) -> dict[str, int]:
    """How many pictures each method has."""
    return {row.method: len({other.id for other in rows if other.method == row.method}) for row in rows}


def tabulate(rows: Sequence[Row]) -> Table:
    """The mean of every measure that a method has.

    Methods are compared on the same pictures: a measure counts those that every method which has it has it for. So a
    failed edit, or one that a method cannot do, takes its picture out of the column, for all methods.
    """
    values: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    shares = preferences(rows)
    for row in rows:
        measures = dict(row.measures)
        if row.seconds is not None:
            measures["seconds"] = row.seconds
        if (row.id, row.method) in shares:
            measures["pickscore"] = shares[row.id, row.method]
        for name, value in measures.items():
            values[name][row.method][row.id] = value
    table: Table = {row.method: {} for row in rows}
    for name, _, _ in COLUMNS:
        by_method = values[name]
        common = sorted(set.intersection(*map(set, by_method.values()))) if by_method else []
        for method, by_id in by_method.items():
            interval = bootstrap_interval([by_id[picture] for picture in common], common)
            table[method][name] = Mean(*interval, len(common)) if common else None
    return table


def preferences(rows: Sequence[Row]) -> dict[tuple[str, str], float]:
    """PickScore as the paper's Table 1 gives it: how likely each method's picture is the one preferred among them.

    The softmax over methods of one picture's scores (Kirstain et al., 2023): the paper's six columns add up to 1
    (single: .0639 + .0951 + .1353 + .1780 + .1377 + .3901), so a value depends on which methods are compared. The
    unedited source is no competitor, and a picture that has not all methods yet is left out.
    """
    logits: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        if row.method != "source" and "pick_logit" in row.measures:
            logits[row.id][row.method] = row.measures["pick_logit"]
    most = max(map(len, logits.values()), default=0)
    found: dict[tuple[str, str], float] = {}
    for picture, by_method in logits.items():
        if len(by_method) == most > 1:
            weights = np.exp(np.array(list(by_method.values())) - max(by_method.values()))
            found |= {(picture, m): float(w) for m, w in zip(by_method, weights / weights.sum(), strict=True)}
    return found


def markdown(table: Table, counts: Mapping[str, int], heading: str = "method") -> str:
    """The table with the columns that any method has; below it, how many pictures its means are over. `heading` is the
    first column's."""
    columns = [column for column in COLUMNS if any(column[0] in means for means in table.values())]
    lines = [
        "| " + " | ".join([heading, "pictures", *(title for _, title, _ in columns)]) + " |",
        "|" + "---|" * (2 + len(columns)),
    ]
    for method, means in table.items():
        cells = [_cell(means.get(name), decimals) for name, _, decimals in columns]
        lines.append("| " + " | ".join([method, str(counts[method]), *cells]) + " |")
    if columns:
        lines += ["", _caption(table, columns)]
    return "\n".join(lines) + "\n"


def _caption(table: Table, columns: Sequence[tuple[str, str, int]]) -> str:
    over = {
        heading.rstrip(" ↑↓"): max(mean.pictures if (mean := means.get(name)) else 0 for means in table.values())
        for name, heading, _ in columns
    }
    numbers = set(over.values())
    each = str(*numbers) if len(numbers) == 1 else ", ".join(f"{heading} {number}" for heading, number in over.items())
    return f"Means over the pictures that all methods with numbers in a column have in common: {each}."


def _cell(mean: Mean | None, decimals: int) -> str:
    if mean is None:
        return "-"
    estimate, low, high = (f"{value:.{decimals}f}" for value in mean[:3])
    return f"{estimate} [{low}, {high}]"
