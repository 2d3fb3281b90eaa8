"""What can be wrong: with the whole run, or with one line of the data."""

from __future__ import annotations

from dataclasses import dataclass


class UsageError(Exception):
    """The run cannot start; one line that says why and what to do."""


class BadLine(Exception):
    """One line of the data cannot be used; says why and what to do."""


@dataclass(frozen=True)
class Problem:
    """A line that was left out, or an edit that failed: `place` is "file:line"."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"
