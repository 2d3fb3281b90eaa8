"""What a command may end with, each with its exit status and a message of one line.

CliError
├── EditError      1    the edit, or a line of a batch, failed
├── UsageError     2    something that was given is wrong
├── UnusableError  3    the service, the model or a package cannot be reached or used
└── Interrupted  130    Ctrl-C
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class CliError(Exception):
    """Base of all."""

    exit_code = 1


class EditError(CliError):
    exit_code = 1


class UsageError(CliError):
    exit_code = 2


class UnusableError(CliError):
    exit_code = 3


class Interrupted(CliError):
    exit_code = 130


@contextmanager
def needing(extras: str) -> Iterator[None]:
    """Imports of packages that only an installation with these extras has. Raises UnusableError."""
    try:
        yield
    except ModuleNotFoundError as error:
        how = f"pip install 'focus-on-your-instruction[{extras}]'"
        raise UnusableError(f"this needs the package {error.name}, which is not installed: {how}") from error
