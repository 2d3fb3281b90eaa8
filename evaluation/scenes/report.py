"""Tables and plots from the committed results."""

from __future__ import annotations

from pathlib import Path

from evaluation.scenes import results, tables
from evaluation.scenes.results import Record

RESULTS = Path(__file__).parents[1] / "results"


def short(records: list[Record]) -> str:
    return tables.main_table(records)


def write() -> None:
    results.load(RESULTS / "rows.json")
