"""The report's tables, in Markdown: a line for each row (a way of editing), 95% bootstrap intervals by scene."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from evaluation.scenes import columns as c
from evaluation.scenes.columns import DASH, Column, counting, edits_in
from evaluation.scenes.results import Record
from evaluation.scenes.statistics import bootstrap_interval, paired_permutation

SMALL, LARGE = 18, 21  # an object's radius in pixels: small below, large above
KINDS = ("recolour", "replace", "remove", "hat", "sun", "sky", "ground", "night")

ASKED = (c.ONE_EDIT, *(c.ALL.where(counting(k), f"all of {k}, %") for k in (2, 3, 4)), c.EACH_OF_MANY)
REST = (c.PSNR, c.LARGEST, c.RING, c.PSNR_FREE, c.PSNR_LATENT, c.PSNR_FAR, c.LEAKAGE)
MASKS_AND_COST = (c.OBJECT_IOU, c.SKY_IOU, c.GROUND_IOU, c.AUPRC, c.BOUNDARY, c.UNET_ROWS)
PAIRED = (c.ONE_EDIT, c.ALL_OF_MANY, c.PSNR_FREE, c.PSNR_FAR, c.IOU)
_OBJECT_PARTS = (
    ("Edits of one object done, %.", c.ALL),
    ("Median mask IoU (recolour, remove and replace).", c.OBJECT_IOU),
)


def by_row(records: Iterable[Record], names: Sequence[str] | None = None) -> dict[str, list[Record]]:
    """The records of each row, in the order of `names`; of every row, in order of appearance, if None."""
    rows: dict[str, list[Record]] = {name: [] for name in names or ()}
    for record in records:
        if names is None:
            rows.setdefault(record["row"], [])
        if record["row"] in rows:
            rows[record["row"]].append(record)
    if empty := [name for name, of_row in rows.items() if not of_row]:
        raise ValueError(f"no record of the rows {', '.join(map(repr, empty))}")
    return rows


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right."""
    cells = [list(header), ["---"] + ["---:"] * (len(header) - 1), *lines]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in cells)


def table(records: Iterable[Record], columns: Sequence[Column], names: Sequence[str] | None = None) -> str:
    """A line for each row, the given columns."""
    lines = [[name, *(column.text(of_row) for column in columns)] for name, of_row in by_row(records, names).items()]
    return markdown(["", *(column.title for column in columns)], lines)


def main_table(records: Sequence[Record], names: Sequence[str] | None = None) -> str:
    """Everything about each row, in three tables with their captions."""
    parts = (
        ("**Does it do what was asked?** Edits that succeed.", ASKED),
        (
            "**Does it leave the rest alone?** As delivered: median PSNR and largest change outside the true regions, "
            "mean error around their edges, in grey levels. Before compositing: median PSNR to the picture, to the "
            "VAE's round trip of it, and to that where the VAE no longer mixes an edit into its surroundings; and "
            "the change outside over the change inside (median).",
            REST,
        ),
        (
            "**Masks and cost.** IoU: medians over single edits; an object is recoloured, removed or replaced. The "
            "rest: means over all instructions and edits; AUPRC is of the soft map before upsampling and filter.",
            MASKS_AND_COST,
        ),
    )
    return "\n".join(f"{caption}\n\n{table(records, columns, names)}" for caption, columns in parts)


def by_kind_table(records: Sequence[Record], names: Sequence[str]) -> str:
    """Success and mask IoU of single edits, by kind of edit."""

    def of_kind(kind: str) -> Callable[[Record], bool]:
        return lambda record: list(record["kinds"]) == [kind]

    parts = (("Single edits done, %.", c.ALL), ("Median mask IoU.", c.IOU))
    return _grouped(records, names, {kind: of_kind(kind) for kind in KINDS}, parts)


def by_k_table(records: Sequence[Record], names: Sequence[str]) -> str:
    """Success, preservation and masks by the number of edits, k."""
    groups = {f"k = {k}": counting(k) for k in sorted({edits_in(record) for record in records})}
    parts = (
        ("All of the k edits done, %.", c.ALL),
        ("Each of the k edits done, %.", c.EACH),
        ("Median PSNR outside before compositing, to the VAE's round trip, dB.", c.PSNR_LATENT),
        ("Median mask IoU of all instructions.", c.IOU),
    )
    return _grouped(records, names, groups, parts)


def by_size_table(records: Sequence[Record], names: Sequence[str]) -> str:
    """Single edits of an object, by its radius."""
    groups: dict[str, Callable[[Record], bool]] = {
        f"radius < {SMALL} px": lambda record: _of_object(record) and record["size"] < SMALL,
        f"{SMALL}–{LARGE} px": lambda record: _of_object(record) and SMALL <= record["size"] <= LARGE,
        f"> {LARGE} px": lambda record: _of_object(record) and record["size"] > LARGE,
    }
    return _grouped(records, names, groups, _OBJECT_PARTS)


def twin_table(records: Sequence[Record], names: Sequence[str]) -> str:
    """Single edits of an object, without and with a second object of its kind in the scene."""
    groups: dict[str, Callable[[Record], bool]] = {
        "the only one of its kind": lambda record: _of_object(record) and not record["has_twin"],
        "one of several": lambda record: _of_object(record) and record["has_twin"],
    }
    return _grouped(records, names, groups, _OBJECT_PARTS)


def paired_table(records: Sequence[Record], baseline: str, others: Sequence[str]) -> str:
    """Mean difference to `baseline` over the edits that both made, its interval and its permutation p-value.

    IoU: over all instructions. The p-values are of each comparison alone.
    """
    rows = by_row(records, [baseline, *others])
    lines = [[name, *(difference(rows[name], rows[baseline], column) for column in PAIRED)] for name in others]
    return markdown([f"minus {baseline}", *(column.title for column in PAIRED)], lines)


def difference(ours: Iterable[Record], theirs: Iterable[Record], column: Column) -> str:
    """`+12 [+8, +16], p = 0.012`: ours minus theirs over shared (case, sample); a dash if nothing is shared."""
    others = {(record["case"], record["sample"]): column.values(record) for record in theirs}
    pairs = [
        (our, their, record["case"])
        for record in ours
        for our, their in _zipped(column.values(record), others.get((record["case"], record["sample"]), []))
    ]
    a, b = (column.scale * np.array([pair[i] for pair in pairs], dtype=float) for i in (0, 1))
    scenes = [scene for _, _, scene in pairs]
    estimate, low, high = (f"{number:+z.{column.digits}f}" for number in bootstrap_interval(a - b, scenes))
    if "nan" in estimate:
        return DASH
    p = paired_permutation(a, b, scenes)
    return f"{estimate} [{low}, {high}], " + ("p < 0.001" if p < 0.001 else f"p = {p:.3f}")


def _zipped(ours: c.Values, theirs: c.Values) -> list[tuple[float | None, float | None]]:
    """Instruction by instruction; nothing if one of both has no mask at all."""
    return list(zip(ours, theirs, strict=True)) if ours and theirs else []


def _of_object(record: Record) -> bool:
    """A single edit of an object: only those have a size."""
    return record["size"] is not None


def _grouped(
    records: Sequence[Record],
    names: Sequence[str],
    groups: Mapping[str, Callable[[Record], bool]],
    parts: Iterable[tuple[str, Column]],
) -> str:
    """For each part, its caption and a table with a column for each group; headers say how many scenes it has."""
    rows = by_row(records, names)
    shown = [record for of_row in rows.values() for record in of_row]
    scenes = {title: len({record["case"] for record in shown if kept(record)}) for title, kept in groups.items()}
    present = {title: kept for title, kept in groups.items() if scenes[title]}
    header = ["(scenes)", *(f"{title} ({scenes[title]})" for title in present)]
    blocks = []
    for caption, column in parts:
        of_groups = [column.where(kept, title) for title, kept in present.items()]
        lines = [[name, *(of_group.text(of_row) for of_group in of_groups)] for name, of_row in rows.items()]
        lines = [line for line in lines if set(line[1:]) != {DASH}]
        if lines:
            blocks.append(f"{caption}\n\n" + markdown(header, lines))
    return "\n".join(blocks)
