"""Who makes the edits: this process, or a service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from foi_cli.console import Tell, err
from foi_cli.errors import needing
from foi_cli.tasks import Task
from foi_client import Edit, File


@dataclass(frozen=True)
class Made:
    """An edit that has succeeded, and how the bytes of its files are got."""

    edit: Edit
    fetch: Callable[[File], bytes]


class Editor(Protocol):
    """`edit` is called by `in_flight` threads at once. `model` is its name."""

    model: str
    in_flight: int

    def edit(self, task: Task, tell: Tell) -> Made:
        """Raises EditError, UsageError (what was asked is refused) and UnusableError (nothing more can be done)."""

    def cancel(self) -> None:
        """Stops everything that is under way, and whatever comes later."""


@contextmanager
def open_editor(server: str | None, *, many: bool = False) -> Iterator[Editor]:
    """`many`: it is worth a moment to find out how many edits fit together. Raises UsageError and UnusableError."""
    if server is not None:
        from foi_cli.remote import open_remote

        with open_remote(server) as remote:
            yield remote
        return
    with needing("service,worker"), err.status("starting"):  # torch takes seconds
        from foi_cli.local import open_local
    with open_local(many) as local:
        yield local
