"""The output folder, from which an interrupted run goes on.

`results.jsonl` gets one line an edit, appended in one write after the edit's pictures are in place: what it names is
there. A later line replaces an earlier one of the same edit. `settings.json` says what the folder's edits were made
with.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from evaluation.appended import cut_torn_line
from evaluation.pictures.data import Item
from evaluation.pictures.methods import Outcome
from evaluation.pictures.problems import UsageError


@dataclass(frozen=True)
class Row:
    """One edit that is done. `method` is the name of what made it. `image` (None where only masks were looked for) and
    `masks` are paths in the folder; `judges` are those of `measures`."""

    id: str
    method: str
    fingerprint: str
    seconds: float | None
    warnings: tuple[str, ...]
    image: str | None
    masks: tuple[str, ...]
    judges: dict[str, str]
    measures: dict[str, float]


class Store:
    """One output folder. Raises UsageError if its edits were made with other settings."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self._results = folder / "results.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        self._settle(settings)
        cut_torn_line(self._results)
        self._rows = {(row.id, row.method): row for row in _read_rows(self._results)}

    def find(self, item: Item, method: str) -> Row | None:
        """The edit if it is done, on this very line and these very files."""
        row = self._rows.get((item.id, method))
        if row is None or row.fingerprint != item.fingerprint:
            return None
        files = (*([] if row.image is None else [row.image]), *row.masks)
        return row if all((self.folder / name).is_file() for name in files) else None

    def add(
        self, item: Item, method: str, outcome: Outcome, judges: Mapping[str, str], measures: dict[str, float]
    ) -> None:
        """Writes the pictures, then the line."""
        place = Path("pictures") / item.id
        (self.folder / place).mkdir(parents=True, exist_ok=True)
        masks = {str(place / f"{method}-mask-{i}.png"): mask for i, mask in enumerate(outcome.masks)}
        edited = {} if outcome.image is None else {str(place / f"{method}.png"): outcome.image}
        for name, picture in {**edited, **masks}.items():
            write_picture(picture, self.folder / name)
        row = Row(
            item.id,
            method,
            item.fingerprint,
            outcome.seconds,
            outcome.warnings,
            next(iter(edited), None),
            tuple(masks),
            dict(judges),
            measures,
        )
        self._append(row)

    def measure_again(self, row: Row, judges: Mapping[str, str], measures: dict[str, float]) -> None:
        self._append(replace(row, judges=dict(judges), measures=measures))

    def pictures(self, row: Row) -> tuple[Image.Image | None, tuple[Image.Image, ...]]:
        """The result and its masks, as they were written (PNG: no loss)."""
        image = None if row.image is None else Image.open(self.folder / row.image).convert("RGB")
        return image, tuple(Image.open(self.folder / name).convert("L") for name in row.masks)

    def _append(self, row: Row) -> None:
        line = json.dumps(asdict(row), allow_nan=False).encode() + b"\n"
        handle = os.open(self._results, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)
        self._rows[row.id, row.method] = row

    def _settle(self, settings: Mapping[str, Any]) -> None:
        """Refuses other settings than the folder's; new ones (of a method that was not run before) join them."""
        path = self.folder / "settings.json"
        if path.is_file():
            try:
                known = dict(json.loads(path.read_text(encoding="utf-8")))
            except ValueError as error:
                raise UsageError(f"{path} is damaged ({error}): give another --out") from error
            for name in known.keys() & settings.keys():
                if known[name] != settings[name]:
                    raise UsageError(
                        f"{self.folder} holds results with {name} {known[name]!r}, not {settings[name]!r}: give "
                        "another --out, or delete that folder to start anew"
                    )
            settings = {**known, **settings}
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)


def _read_rows(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            content = json.loads(line)
            content |= {"warnings": tuple(content["warnings"]), "masks": tuple(content["masks"])}
            rows.append(Row(**content))
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(f"{path}:{number} is damaged ({error}): delete that line") from error
    return rows


def write_picture(picture: Image.Image, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    picture.save(temporary, "PNG")
    temporary.replace(path)
