"""What was measured so far: one JSON file, whole at any time, from which a later run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class OtherRun(Exception):
    """The file holds another run: figures of two machines, models or settings never stand in one table."""


class Results:
    """`head` says what the figures are of: the machine and the settings. Each leg has its record under its name."""

    def __init__(self, path: Path, head: dict[str, Any], *, fresh: bool) -> None:
        self.path = path
        self.all: dict[str, Any] = {**head, "legs": {}}
        if path.exists() and not fresh:
            found = json.loads(path.read_text())
            for part, values in head.items():
                for name in values.keys() | found[part].keys():
                    if values.get(name) != found[part].get(name):
                        raise OtherRun(
                            f"{path} was measured with {name} {found[part].get(name)!r}, this run has "
                            f"{values.get(name)!r}: --fresh starts anew, --out takes another folder"
                        )
            self.all = found

    @property
    def legs(self) -> dict[str, dict[str, Any]]:
        legs: dict[str, dict[str, Any]] = self.all["legs"]
        return legs

    def done(self, leg: str) -> bool:
        """Whether the leg has all its figures, or can have none here."""
        return leg in self.legs and not self.problems(leg)

    def problems(self, leg: str) -> list[str]:
        """Why the leg, or a part of it, has no figures; nothing for one that has them all."""
        record = self.legs.get(leg, {})
        of_parts = [f"{name}: {why}" for name, why in record.get("failed", {}).items()]
        return [record["error"], *of_parts] if "error" in record else of_parts

    def put(self, leg: str, record: dict[str, Any]) -> None:
        self.legs[leg] = record
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".part")
        partial.write_text(json.dumps(self.all, indent=1) + "\n")
        partial.replace(self.path)
