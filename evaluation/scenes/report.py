"""Tables and plots from the committed results: evaluation/results/tables.md and the pictures beside it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.scenes import columns, metrics, plots, results, rows, tables
from evaluation.scenes import directions as d
from evaluation.scenes.results import Record

RESULTS = Path(__file__).parents[1] / "results"


def short(records: list[Record]) -> str:
    """The tables of `make eval-quick` and of single rows."""
    shown = (columns.ONE_EDIT, columns.ALL_OF_MANY, columns.PSNR, columns.PSNR_FREE, columns.IOU, columns.UNET_ROWS)
    kinds = tables.by_kind_table(records, list(tables.by_row(records)))
    return f"{tables.table(records, shown)}\nSingle edits, by kind:\n\n{kinds}"


def write(out: Path) -> None:
    """tables.md and the plots in `out`, from rows.json, directions.json and interference.json there.

    Only rows that have edited every scene, and only seeds that all of these rows have edited every scene with.
    """
    records, meta = results.load(out / "rows.json")
    swept, _ = results.load(out / "directions.json")
    records, swept = whole(records), whole(swept)
    present = {record["row"] for record in records}
    main = [row.name for row in (rows.IP2P, rows.SEQUENTIAL, rows.FAITHFUL, rows.FOI, rows.BEST)]
    parts = [
        "# Results\n",
        "Made by `make eval`; from the JSON files beside it again by `python -m evaluation.scenes --report`.\n",
        _about(records, meta),
        "## The rows\n",
        tables.markdown(["row", "what it is"], [[row.name, row.says] for row in rows.ALL if row.name in present]),
        tables.main_table(records, [row.name for row in rows.ALL if row.name in present]),
        "## By number of instructions\n", tables.by_k_table(records, main),
        "## By kind of edit\n", tables.by_kind_table(records, main),
        "## By size of the object\n", tables.by_size_table(records, main),
        "## With and without a second object of the same kind\n", tables.twin_table(records, main),
        "## Differences\n",
        "Mean difference to the row named first, over edits that both made, with its interval and the p-value of a\n"
        "paired permutation test by scene (not corrected for their number).\n",
        *(tables.paired_table(records, base.name, [r.name for r in others if r.name in present]) for base, others in (
            (rows.IP2P, (rows.PASTE, rows.SEQUENTIAL, rows.FAITHFUL, rows.FOI, rows.TRUE, rows.BEST)),
            (rows.FOI, rows.IDEAS),
            (rows.BEST, rows.CHOICES),
        )),
        "## The paper's directions\n",
        _directions(records, swept),
        "## Which instruction changes which region\n",
        _interference(out),
    ]  # fmt: skip
    (out / "tables.md").write_text("\n".join(parts))
    _plots(records, swept, [row.name for row in rows.ALL if row.name in present], out)


def whole(records: Sequence[Record]) -> list[Record]:
    """The records of rows that edited every scene, with seeds that all of these rows edited every scene with."""
    scenes = len({record["case"] for record in records})
    edited = Counter((record["row"], record["sample"]) for record in records)
    complete = {row for (row, sample), count in edited.items() if sample == 0 and count == scenes}
    samples = {sample for _, sample in edited if all(edited[row, sample] == scenes for row in complete)}
    return [record for record in records if record["row"] in complete and record["sample"] in samples]


def _about(records: Sequence[Record], meta: dict[str, Any]) -> str:
    told = ("commit", "weights", "device", "dtype", "torch", "num_inference_steps", "defaults")
    named = "; ".join(f"{name} {meta[name]}" for name in told)
    scenes, seeds = (len({record[name] for record in records}) for name in ("case", "sample"))
    return (
        f"{scenes} reported scenes, {seeds} {'seed' if seeds == 1 else 'seeds'} a scene, shared by all rows; keywords "
        f"are the scenes' own except where a row says otherwise. Made with {named}.\n\n"
        "Brackets: 95% bootstrap intervals by scene.\n"
    )


def _directions(records: list[Record], swept: list[Record]) -> str:
    pair = [rows.IP2P.name, rows.FOI.name]
    single = [r for r in records if len(r["kinds"]) == 1]
    several = [r for r in records if len(r["kinds"]) > 1]
    parts = [
        "IP2P against FoI with this model's tau, as in the sweeps. Preservation: PSNR before compositing,\n"
        "16 pixels and more from the true regions, to the VAE's round trip.\n",
        d.direction_table(single, d.TABLE_1_SINGLE, pair),
        d.direction_table(several, d.TABLE_1_MULTI, pair),
    ]
    for sweep, of in ((d.TABLE_3, rows.TABLE_3), (d.TABLE_4, rows.TABLE_4), (d.TABLE_5, rows.TABLE_5)):
        parts.append(d.direction_table(swept, sweep, _names(of)))
    foi, ip2p, best = (_names(rows.SCALES[row]) for row in (rows.FOI, rows.IP2P, rows.BEST))
    parts.append(d.claim_line(d.FIGURE_6D, d.slope(swept, foi, columns.PSNR_FAR, minus=ip2p), "dB"))
    parts.append(d.claim_line("The same of the default", d.slope(swept, best, columns.PSNR_FAR, minus=ip2p), "dB"))
    parts.append(d.claim_line(d.FIGURE_8, d.slope(swept, _names(rows.FIGURE_8), CHANGE_INSIDE), "grey levels"))
    return "\n".join(parts)


def _change_inside(record: Record) -> columns.Values:
    """Mean change inside the region: that outside over the leakage."""
    return [record["outside_free"]["mae"] / record["leakage"] if record["leakage"] else None]


CHANGE_INSIDE = columns.Column("change inside", _change_inside, np.mean, 1).where(columns.single, "change inside")


def _interference(out: Path) -> str:
    path = out / "interference.json"
    if not path.exists():
        return "Not measured yet.\n"
    matrices = {name: np.array(matrix) for name, matrix in json.loads(path.read_text()).items()}
    lines = [[name, f"{metrics.interference_ratio(matrix):.3f}"] for name, matrix in matrices.items()]
    return (
        "Mean change that leaving instruction j out makes in region i, other regions over its own (0: none):\n\n"
        + tables.markdown(["row", "interference"], lines)
    )


def _plots(records: list[Record], swept: list[Record], present: list[str], out: Path) -> None:
    plots.bars(records, out / "rows.png", names=present)
    found = [rows.FAITHFUL.name, rows.FOI.name, rows.BEST.name]
    plots.ious(records, found, out / "ious.png")
    panels = {
        "mask taken at, share of the run": (d.TABLE_3, _names(rows.TABLE_3)),
        "modulated until": (d.TABLE_4, _names(rows.TABLE_4)),
        "disentangled until": (d.TABLE_5, _names(rows.TABLE_5)),
    }
    plots.sweeps(swept, panels, out / "sweeps.png")
    by_row = tables.by_row(swept)
    curves = {
        row.name: {scale: by_row[one.name] for scale, one in zip(rows.TEXT_SCALES, of, strict=True)}
        for row, of in rows.SCALES.items()
    }
    plots.curves(curves, out / "curves.png")


def _names(of: Iterable[rows.Row]) -> list[str]:
    return [row.name for row in of]
