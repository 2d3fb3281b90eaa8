"""What people see, on stderr: messages, log lines and progress. stdout is for results."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

Tell = Callable[[str, int, int], None]
"""Stage, steps that are done, steps in all."""

err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(message: object, style: str = "") -> None:
    """One line, without colours where nobody looks."""
    err.print(f"foi: {' '.join(str(message).split())}", style=style, markup=False)


def write_json(value: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def show_logs() -> None:
    """Retries and trouble as lines above the bars; of what goes well only downloads, which take long."""
    logging.basicConfig(handlers=[_Lines()], level=logging.WARNING, force=True)
    logging.getLogger("foi_core.hub").setLevel(logging.INFO)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


class Bars:
    """A bar for each edit under way, and with `total` one for all of them. Threads may share it."""

    def __init__(self, progress: Progress, total: int | None) -> None:
        self._progress = progress
        self._all = None if total is None else progress.add_task("all", total=total)

    @contextmanager
    def edit(self, name: str) -> Iterator[Tell]:
        bar: TaskID = self._progress.add_task(f"{escape(name)}: waiting", total=None)

        def tell(stage: str, step: int, steps: int) -> None:
            self._progress.update(bar, description=f"{escape(name)}: {stage}", completed=step, total=steps or None)

        try:
            yield tell
        finally:
            self._progress.remove_task(bar)

    def ended(self) -> None:
        """One more of all is over."""
        if self._all is not None:
            self._progress.advance(self._all)


@contextmanager
def bars(total: int | None = None) -> Iterator[Bars]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        yield Bars(progress, total)
