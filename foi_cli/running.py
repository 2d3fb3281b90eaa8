"""Many tasks in a few threads, until all are done, one ends everything, or Ctrl-C cancels the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Generic, TypeVar

from foi_cli.errors import Interrupted
from foi_cli.tasks import Task

T = TypeVar("T")
CANCEL_S = 10.0
"""How long edits may take to end once they are canceled: a running one makes at most two further steps."""


def run(
    tasks: Iterable[Task],
    work: Callable[[Task], T],
    threads: int,
    ended: Callable[[Task, T], None],
    cancel: Callable[[], None],
) -> None:
    """`ended` is called in the caller's thread, with each result as it comes. What `work` raises ends everything, as
    does Ctrl-C (Interrupted); what is under way is canceled then."""
    crew = _Crew(tasks, work, threads)
    try:
        for task, result in crew.results():
            ended(task, result)
    except BaseException as error:
        crew.stop()
        cancel()
        crew.wait(CANCEL_S)
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted("stopped: what was under way is canceled") from None
        raise


class _Crew(Generic[T]):
    """Threads that do not keep the process alive: one may hang on a service that does not answer."""

    def __init__(self, tasks: Iterable[Task], work: Callable[[Task], T], threads: int) -> None:
        self._tasks, self._work = iter(tasks), work
        self._lock, self._stopped = Lock(), False
        self._results: SimpleQueue[tuple[Task, T] | BaseException | None] = SimpleQueue()
        self._threads = [Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def results(self) -> Iterator[tuple[Task, T]]:
        """Raises what `work` raises."""
        left = len(self._threads)
        while left:
            match self._results.get():
                case None:
                    left -= 1
                case BaseException() as error:
                    raise error
                case result:
                    yield result

    def stop(self) -> None:
        """No further task is begun."""
        self._stopped = True

    def wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        try:
            while (task := self._next()) is not None:
                self._results.put((task, self._work(task)))
        except BaseException as error:  # is raised again in the caller's thread
            self._results.put(error)
        finally:
            self._results.put(None)

    def _next(self) -> Task | None:
        with self._lock:
            return None if self._stopped else next(self._tasks, None)
