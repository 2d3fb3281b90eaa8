"""The fields of one JSON object, each checked for its type. Every error is a BadLine that names the field."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from evaluation.pictures.problems import BadLine
from foi_core.spec import SEED_LIMIT


class Fields:
    """`content` may hold the fields `known`, and no others; `prefix` stands before their names in errors."""

    def __init__(self, content: dict[str, Any], known: frozenset[str], folder: Path, prefix: str = "") -> None:
        self._content, self._folder, self._prefix = content, folder, prefix
        unknown = sorted(content.keys() - known)
        if unknown:
            raise BadLine(f"unknown field {prefix}{unknown[0]}: the fields are {', '.join(sorted(known))}")

    def text(self, name: str, needed: bool = False) -> str | None:
        """Text that is not blank."""
        value = self._content.get(name)
        if value is None and not needed:
            return None
        if not isinstance(value, str) or not value.strip():
            raise BadLine(f"{self._prefix}{name} is {_shown(value)}: give a text")
        if any("\ud800" <= letter <= "\udfff" for letter in value):  # JSON can write halves of letters
            raise BadLine(
                f"{self._prefix}{name} is {_shown(value)}: half of a letter (a lone surrogate); write it whole"
            )
        return value

    def name(self, name: str) -> str | None:
        """Text that can name a file."""
        value = self.text(name)
        if value is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", value):
            raise BadLine(f"{self._prefix}{name} is {_shown(value)}: use up to 100 letters, digits, dots, - and _")
        return value

    def path(self, name: str, needed: bool = False) -> Path | None:
        """A path inside the folder, links followed; whether there is a file is not asked."""
        value = self.text(name, needed)
        if value is None:
            return None
        try:
            path = (self._folder / value).resolve()
        except (OSError, ValueError) as error:
            raise BadLine(f"{self._prefix}{name} is {_shown(value)}: no path ({error})") from error
        if not path.is_relative_to(self._folder.resolve()):
            raise BadLine(f"{self._prefix}{name} is {_shown(value)}: it leaves {self._folder}; put the file inside")
        return path

    def seed(self, name: str) -> int | None:
        value = self._content.get(name)
        if value is not None and (type(value) is not int or not 0 <= value < SEED_LIMIT):
            raise BadLine(f"{self._prefix}{name} is {_shown(value)}: give a whole number from 0 to {SEED_LIMIT - 1}")
        return value

    def list(self, name: str) -> list[Any] | None:
        value = self._content.get(name)
        if value is not None and (not isinstance(value, list) or not value):
            raise BadLine(f"{self._prefix}{name} is {_shown(value)}: give a list of objects")
        return value


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
