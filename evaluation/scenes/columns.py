"""The tables' columns: each picks its values out of an edit's record, and sums them up with an interval by scene.

Records are those of `run.measure`; the groups by size and twins need them joined with their cases (`results.joined`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluation.scenes.metrics import SUCCESS
from evaluation.scenes.results import Record
from evaluation.scenes.statistics import bootstrap_interval

Values = list[float | None]
Interval = tuple[float, float, float]  # estimate, low, high
OBJECTS = ("recolour", "remove", "replace")
DASH = "–"


@dataclass(frozen=True)
class Column:
    """`values` gives one record's values: none where the column does not apply, None where one is undefined."""

    title: str
    values: Callable[[Record], Values]
    statistic: Callable[[np.ndarray], np.floating | float] = np.mean
    digits: int = 0
    scale: float = 1.0

    def interval(self, records: Iterable[Record]) -> Interval:
        """Estimate and 95% bootstrap interval by scene, in the column's unit; nan without values."""
        pairs = [(value, record["case"]) for record in records for value in self.values(record)]
        values, scenes = [value for value, _ in pairs], [scene for _, scene in pairs]
        estimate, low, high = bootstrap_interval(values, scenes, self.statistic)
        return self.scale * estimate, self.scale * low, self.scale * high

    def text(self, records: Iterable[Record]) -> str:
        """`0.87 [0.82, 0.91]`; just `0.87` if both ends print the same, a dash without values."""
        estimate, low, high = (f"{number:z.{self.digits}f}" for number in self.interval(records))
        if estimate == "nan":
            return DASH
        return estimate if estimate == low == high else f"{estimate} [{low}, {high}]"

    def where(self, kept: Callable[[Record], bool], title: str) -> Column:
        """The same column of the records that are `kept`."""
        return replace(self, title=title, values=lambda record: self.values(record) if kept(record) else [])


def edits_in(record: Record) -> int:
    """How many instructions the edit has, k."""
    return len(record["kinds"])


def single(record: Record) -> bool:
    return edits_in(record) == 1


def several(record: Record) -> bool:
    return edits_in(record) > 1


def counting(k: int) -> Callable[[Record], bool]:
    """Whether an edit has `k` instructions."""
    return lambda record: edits_in(record) == k


def _each_success(record: Record) -> Values:
    return [None if error is None else float(error < SUCCESS) for error in record["errors"]]


def _all_succeed(record: Record) -> Values:
    judged = [success for success in _each_success(record) if success is not None]
    return [min(judged)] if judged else []


def _all_succeed_free(record: Record) -> Values:
    return _all_succeed({**record, "errors": record["errors_free"]})


def _outside(field: str, number: str) -> Callable[[Record], Values]:
    return lambda record: [record[field][number]]


def _field(name: str) -> Callable[[Record], Values]:
    """A field with one number, or one for each instruction; no value where the record has none."""

    def values(record: Record) -> Values:
        value = record.get(name, [])
        return list(value) if isinstance(value, Sequence) else [value]

    return values


ALL = Column("all done, %", _all_succeed, scale=100)
EACH = Column("each done, %", _each_success, scale=100)
ONE_EDIT = ALL.where(single, "one edit, %")
ALL_FREE = Column("all done before compositing, %", _all_succeed_free, scale=100)
ALL_OF_MANY = ALL.where(several, "all of k ≥ 2, %")
EACH_OF_MANY = EACH.where(several, "each of k ≥ 2, %")

PSNR = Column("PSNR outside, dB", _outside("outside", "psnr"), np.median, 1)
PSNR_FREE = Column("PSNR before compositing, to the picture, dB", _outside("outside_free", "psnr"), np.median, 1)
PSNR_LATENT = Column("PSNR before compositing, to the round trip, dB", _outside("outside_vae", "psnr"), np.median, 1)
PSNR_FAR = Column("the same, 16 px away and more, dB", _outside("outside_far", "psnr"), np.median, 1)
LARGEST = Column("largest change outside", _outside("outside", "max"), np.median)
RING = Column("ring error", _field("ring"), digits=1)
LEAKAGE = Column("leakage", _field("leakage"), np.median, 3)

IOU = Column("IoU", _field("iou"), np.median, 2)
AUPRC = Column("AUPRC", _field("auprc"), digits=2)
BOUNDARY = Column("boundary F", _field("boundary"), digits=2)
OBJECT_IOU = IOU.where(lambda record: single(record) and record["kinds"][0] in OBJECTS, "IoU, object")
SKY_IOU = IOU.where(lambda record: list(record["kinds"]) == ["sky"], "IoU, sky")
GROUND_IOU = IOU.where(lambda record: list(record["kinds"]) == ["ground"], "IoU, ground")

UNET_ROWS = Column("UNet rows", _field("unet_rows"))
