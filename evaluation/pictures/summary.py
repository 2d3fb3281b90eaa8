"""One table from all results: a row for each method, means with 95% bootstrap intervals over the pictures."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

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
Interval = tuple[float, float, float]
Table = dict[str, dict[str, Interval]]


def write_summary(rows: Sequence[Row], folder: Path) -> str:
    """Writes `summary.md` and `summary.json` to `folder`; returns the Markdown."""
    table = tabulate(rows)
    counts = {method: len({row.id for row in rows if row.method == method}) for method in table}
    text = markdown(table, counts)
    (folder / "summary.md").write_text(text, encoding="utf-8")
    content = {
        method: {"pictures": counts[method]}
        | {name: dict(zip(("mean", "low", "high"), interval, strict=True)) for name, interval in values.items()}
        for method, values in table.items()
    }
    (folder / "summary.json").write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return text


def tabulate(rows: Sequence[Row]) -> Table:
    """Mean, low and high of every measure that a method has, by method."""
    values: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    shares = preferences(rows)
    for row in rows:
        measures = dict(row.measures)
        if row.seconds is not None:
            measures["seconds"] = row.seconds
        if (row.id, row.method) in shares:
            measures["pickscore"] = shares[row.id, row.method]
        of_method = values[row.method]
        for name, _, _ in COLUMNS:
            if name in measures:
                of_method[name][row.id] = measures[name]
    return {
        method: {name: bootstrap_interval(list(by_id.values()), list(by_id)) for name, by_id in of_method.items()}
        for method, of_method in values.items()
    }


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


def markdown(table: Table, counts: dict[str, int]) -> str:
    """The table with the columns that any method has."""
    columns = [column for column in COLUMNS if any(column[0] in values for values in table.values())]
    lines = [
        "| " + " | ".join(["method", "pictures", *(heading for _, heading, _ in columns)]) + " |",
        "|" + "---|" * (2 + len(columns)),
    ]
    for method, values in table.items():
        cells = [_cell(values.get(name), decimals) for name, _, decimals in columns]
        lines.append("| " + " | ".join([method, str(counts[method]), *cells]) + " |")
    return "\n".join(lines) + "\n"


def _cell(interval: Interval | None, decimals: int) -> str:
    if interval is None:
        return "-"
    mean, low, high = (f"{value:.{decimals}f}" for value in interval)
    return f"{mean} [{low}, {high}]"
