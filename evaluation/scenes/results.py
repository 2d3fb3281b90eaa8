"""The committed results: one JSON file for many edits, column by column, with what they were made with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.scenes.cases import Case

DIGITS = 4  # significant ones that are kept of every number with a fraction
Record = dict[str, Any]


def about(case: Case) -> Record:
    """What the tables ask of a case: its seed, kinds of edits, object size (None without a single object) and twins."""
    return {"seed": case.seed, "kinds": list(case.kinds), "size": case.object_size, "has_twin": case.has_twin}


def joined(records: Iterable[Record], cases: Iterable[Record]) -> list[Record]:
    """Each record with the properties of its case, which is the one of `cases` whose "seed" is the record's "case"."""
    by_seed = {case["seed"]: {name: value for name, value in case.items() if name != "seed"} for case in cases}
    return [record | by_seed[record["case"]] for record in records]


def save(path: Path, records: Sequence[Record], meta: Mapping[str, Any], cases: Sequence[Record]) -> None:
    """Writes `records`, the properties of their `cases` (see `about`) once each, and `meta` as it is.

    A case's properties are not kept in the records too; records of one row must have the same fields.
    """
    used = {record["case"] for record in records}
    about_cases = sorted((case for case in cases if case["seed"] in used), key=lambda case: int(case["seed"]))
    properties = {name for case in about_cases for name in case}
    rows: dict[str, list[Record]] = {}
    for record in records:
        kept = {name: value for name, value in record.items() if name not in properties and name != "row"}
        rows.setdefault(record["row"], []).append(_flat(kept))
    tables = {name: _columns(name, of_row) for name, of_row in rows.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_text(dict(meta), _columns("cases", about_cases), tables), encoding="utf-8")


def load(path: Path) -> tuple[list[Record], dict[str, Any]]:
    """The records, joined with their cases and grouped by row, and the meta that `save` was given."""
    content = json.loads(path.read_text(encoding="utf-8"))
    cases = _records(content["cases"])
    rows = [{"row": name} | _nested(record) for name, table in content["rows"].items() for record in _records(table)]
    return joined(rows, cases), content["meta"]


def rounded(value: Any) -> Any:
    """`value`, however nested, with DIGITS significant digits; None for nan. Whole numbers and text stay."""
    if isinstance(value, Mapping):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    if not isinstance(value, float):
        return value
    return None if value != value else float(f"{value:.{DIGITS}g}")


def _flat(record: Record) -> Record:
    """{"outside": {"mae": 1}} as {"outside.mae": 1}."""
    flat: Record = {}
    for name, value in record.items():
        flat |= {f"{name}.{part}": v for part, v in value.items()} if isinstance(value, Mapping) else {name: value}
    return flat


def _nested(flat: Record) -> Record:
    record: Record = {}
    for name, value in flat.items():
        outer, dot, inner = name.partition(".")
        if dot:
            record.setdefault(outer, {})[inner] = value
        else:
            record[name] = value
    return record


def _columns(name: str, records: Sequence[Record]) -> dict[str, list[Any]]:
    fields = list(records[0]) if records else []
    if any(set(record) != set(fields) for record in records):
        raise ValueError(
            f"the records of {name!r} differ in their fields: measure all of them again, or leave some out"
        )
    return {field: [rounded(record[field]) for record in records] for field in fields}


def _records(columns: Mapping[str, Sequence[Any]]) -> list[Record]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _text(meta: Record, cases: Record, rows: Record) -> str:
    """JSON with a line for each column: small, and a change shows where it is."""

    def table(columns: Record) -> str:
        return "{\n" + ",\n".join(f"{_json(name)}: {_json(column)}" for name, column in columns.items()) + "\n}"

    tables = ",\n".join(f"{_json(name)}: {table(columns)}" for name, columns in rows.items())
    return (
        f'{{\n"meta": {json.dumps(meta, indent=1, ensure_ascii=False, allow_nan=False)},\n'
        f'"cases": {table(cases)},\n"rows": {{\n{tables}\n}}\n}}\n'
    )


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
