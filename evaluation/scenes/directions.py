"""The paper's numbers beside ours: whether the same change of a setting moves both in the same direction.

The paper judges preservation by CLIP-I (and DINO-I) and obedience by CLIP-D (and PickScore) on real photographs. On
scenes with ground truth, preservation is the PSNR away from the true regions before compositing, against the VAE's
round trip, and obedience is success before compositing. Only directions can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.scenes import columns as c
from evaluation.scenes.columns import Column, Interval
from evaluation.scenes.results import Record
from evaluation.scenes.statistics import bootstrap_interval
from evaluation.scenes.tables import by_row, markdown

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Sweep:
    """One of the paper's tables: a setting and, for each of its values, the paper's measures."""

    table: str
    setting: str
    values: tuple[str, ...]
    preservation: Mapping[str, Numbers]
    obedience: Mapping[str, Numbers]


TABLE_1_SINGLE = Sweep(
    "Table 1, one edit",
    "method",
    ("IP2P", "FoI"),
    {"CLIP-I": (0.8605, 0.9402), "DINO-I": (0.8264, 0.9277)},
    {"CLIP-D": (0.1685, 0.1699), "PickScore": (0.1353, 0.3901)},
)
TABLE_1_MULTI = Sweep(
    "Table 1, several edits",
    "method",
    ("IP2P", "FoI"),
    {"CLIP-I": (0.8769, 0.9255), "DINO-I": (0.8369, 0.9159)},
    {"CLIP-D": (0.1605, 0.1685), "PickScore": (0.1059, 0.5077)},
)
TABLE_3 = Sweep(
    "Table 3",
    "mask at step",
    ("0", "20", "40", "60", "79"),
    {"CLIP-I": (0.9260, 0.9183, 0.9059, 0.8910, 0.8805)},
    {"CLIP-D": (0.1745, 0.1724, 0.1715, 0.1708, 0.1697)},
)
TABLE_4 = Sweep(
    "Table 4",
    "modulation until step",
    ("1", "20", "40", "60", "80"),
    {"CLIP-I": (0.9172, 0.9179, 0.9201, 0.9248, 0.9260)},
    {"CLIP-D": (0.1701, 0.1715, 0.1729, 0.1736, 0.1745)},
)
TABLE_5 = Sweep(
    "Table 5",
    "disentangling until step",
    ("1", "20", "40", "60", "80"),
    {"CLIP-I": (0.9176, 0.9185, 0.9190, 0.9260, 0.9329)},
    {"CLIP-D": (0.1729, 0.1732, 0.1738, 0.1745, 0.1729)},
)
RISES = (0.0, 1.0)  # what the paper shows in a figure without numbers
FIGURE_6D = "Fig. 6d: as s_T rises, FoI keeps the rest better than IP2P, which over-edits"
FIGURE_8 = "Fig. 8: a larger alpha makes the edit that it belongs to stronger"


def direction_table(records: Sequence[Record], sweep: Sweep, names: Sequence[str]) -> str:
    """The paper's table beside ours, and whether they agree. `names`: our row for each of the sweep's values."""
    rows = by_row(records, names)
    measures = [*sweep.preservation.items(), *sweep.obedience.items()]
    cut = len(sweep.preservation)
    lines = []
    for i, (value, of_row) in enumerate(zip(sweep.values, rows.values(), strict=True)):
        papers = [f"{numbers[i]:.4f}" for _, numbers in measures]
        lines.append([value, *papers[:cut], c.PSNR_FAR.text(of_row), *papers[cut:], c.ALL_FREE.text(of_row)])
    titles = [f"paper's {name}" for name, _ in measures]
    header = [
        sweep.setting,
        *titles[:cut],
        "our median PSNR away from the regions, dB",
        *titles[cut:],
        "our success, %",
    ]
    kept = _verdict(records, names, c.PSNR_FAR, next(iter(sweep.preservation.values())))
    done = _verdict(records, names, c.ALL_FREE, next(iter(sweep.obedience.values())))
    verdict = f"{sweep.table}, by the slopes of our means: preservation {kept}; obedience {done}."
    return f"{markdown(header, lines)}\n{verdict}\n"


def claim_line(claim: str, ours: Interval, unit: str, paper: Sequence[float] = RISES) -> str:
    """A sentence for a figure without numbers: what the paper says, and how our slope compares."""
    return f"{claim}: **{agreement(ours, paper)}** ({_slope_text(ours)} {unit} from one setting to the next).\n"


def agreement(ours: Interval, paper: Sequence[float]) -> str:
    """How our slope (estimate, low, high) compares to the paper's numbers, setting by setting.

    "agree" if the whole interval has the sign of the paper's rank correlation, "flat" if it holds 0, else "disagree".
    """
    _, low, high = ours
    if np.isnan(low) or low <= 0 <= high:
        return "flat"
    return "agree" if np.sign(low) == np.sign(rank_correlation(range(len(paper)), paper)) else "disagree"


def slope(records: Iterable[Record], names: Sequence[str], column: Column, minus: Sequence[str] = ()) -> Interval:
    """How much `column`'s mean rises from one of `names` to the next (least squares), with its interval by scene.

    Settings count as evenly spaced. Only edits (case, sample) that every row has count. With `minus`, the slope over
    those rows is subtracted: whether one method's curve falls less than another's.
    """
    weights = dict(zip(names, _slope_weights(len(names)), strict=True))
    weights |= dict(zip(minus, -_slope_weights(len(minus)), strict=True))
    sums: dict[tuple[int, int], dict[str, float]] = {}
    for record in records:
        values = [value for value in column.values(record) if value is not None]
        if record["row"] in weights and values:
            weighted = weights[record["row"]] * float(np.mean(values))
            sums.setdefault((record["case"], record["sample"]), {})[record["row"]] = weighted
    # Rounded, so that a flat curve's slope is 0 and not what is left of adding up.
    whole = {edit: round(sum(parts.values()), 9) for edit, parts in sums.items() if len(parts) == len(weights)}
    estimate, low, high = bootstrap_interval(list(whole.values()), [case for case, _ in whole])
    return column.scale * estimate, column.scale * low, column.scale * high


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's, equal values sharing their mean rank; 0 if either is constant."""
    a, b = (_ranks(np.asarray(values, dtype=float)) for values in (x, y))
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    below, equal = (compare.sum(axis=1) for compare in (values[:, None] > values, values[:, None] == values))
    return np.asarray(below + (equal - 1) / 2)


def _slope_weights(count: int) -> np.ndarray:
    """Their product with evenly spaced values is the least-squares slope."""
    x = np.arange(count) - (count - 1) / 2
    return x / (x @ x) if count > 1 else np.zeros(count)


def _verdict(records: Iterable[Record], names: Sequence[str], column: Column, paper: Sequence[float]) -> str:
    ours = slope(records, names, column)
    unit = "points" if column.scale == 100 else "dB"
    return f"**{agreement(ours, paper)}** ({_slope_text(ours)} {unit} from one setting to the next)"


def _slope_text(ours: Interval) -> str:
    estimate, low, high = (f"{number:+z.2f}" for number in ours)
    return f"{estimate} [{low}, {high}]"
