"""Which version of us runs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version

NAME = "focus-on-your-instruction"


def version() -> str:
    """Of the installed package; `0+source` where it runs from its sources alone."""
    try:
        return installed_version(NAME)
    except PackageNotFoundError:
        return "0+source"
