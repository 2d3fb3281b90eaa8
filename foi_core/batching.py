"""Many edits in flight in one UNet batch: each joins at the next step, and leaves when it is done, stopped or failed.

    submit -> prepare thread -> step thread -> finish thread -> the ticket's future -> drawn
    (shrink)  (encode)          (denoise)      (decode)                                (enlarge)

Only the step thread runs the UNet. What takes long beside it has its own thread, so that no edit's encoding or decoding
holds the steps of the others. In these three every picture has the model's size: what is done at the caller's is done
in the caller's thread, and a large picture holds up nobody else.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import NamedTuple

import torch
from PIL import Image

from foi_core.engine import Engine, OnProgress
from foi_core.errors import DeadlineExceeded, EngineDied, FoiError, OutOfMemory
from foi_core.finishing import Decoded
from foi_core.result import Progress
from foi_core.spec import EditSpec
from foi_core.state import EditState

SILENCE = 100
"""A batch of a worker's edits, of the largest working size, takes so many times as long as one of the native size."""
MEMORY_SHARE = 0.9
"""Of the memory that is free after loading; the rest is for decoding, and for fragments."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Capacity:
    """What may be in flight at once: `edits`, and `cells`, their latent cells together. An edit of more cells than that
    flies alone."""

    edits: int
    cells: int

    @classmethod
    def measured(cls, engine: Engine, edits: int, on_progress: OnProgress | None = None) -> Capacity:
        """Warms the engine up. `edits` of the model's own size; on CUDA no more than the free memory holds."""
        used, native = engine.warm_up(on_progress), engine.native_cells
        if used is None:
            return cls(edits, edits * native)
        free, _ = torch.cuda.mem_get_info(engine.device)
        return cls(edits, min(edits * native, int(native * MEMORY_SHARE * free / used)))


class Stepped(NamedTuple):
    """What was stepped so far: `edits` counts every edit in each of the `steps`, so that edits / steps is how full the
    batches were."""

    steps: int = 0
    edits: int = 0
    seconds: float = 0.0


@dataclass(order=True, unsafe_hash=True)
class Ticket:
    """One edit that was handed to the engine. Ordered as they are admitted: by priority, then first come, first served.

    `image` and the masks of `spec` have the model's size. `progress` is always the present one; `result` raises
    ModelFailure, UnsafeResult, OutOfMemory, DeadlineExceeded, EngineDied or whatever `stop` was given.
    """

    priority: int
    number: int
    image: Image.Image = field(compare=False)
    spec: EditSpec = field(compare=False)
    deadline: float | None = field(compare=False)  # time.monotonic()
    result: Future[Decoded] = field(compare=False, default_factory=Future)
    progress: Progress = field(compare=False, default=Progress(0, 0, "encode"))
    state: EditState | None = field(compare=False, default=None)
    stopped: FoiError | None = field(compare=False, default=None)

    def stop(self, reason: FoiError) -> None:
        """The edit ends with `reason` before its next step. May be called from any thread, also when it has ended."""
        self.stopped = self.stopped or reason

    @property
    def over(self) -> FoiError | None:
        """Why this edit should not go on."""
        if self.stopped is None and self.deadline is not None and time.monotonic() > self.deadline:
            return DeadlineExceeded("the edit's time was over before it was done")
        return self.stopped

    @property
    def cells(self) -> int:
        return math.prod(self.state.latent_size) if self.state is not None else 0


class BatchingEngine:
    """`engine` under three threads. Submit from any thread; `on_change` is called by the engine's after every step, and
    must not block. `stepped` is always the present one."""

    def __init__(self, engine: Engine, capacity: Capacity, on_change: Callable[[], None] = lambda: None) -> None:
        self.capacity = capacity
        self.died: BaseException | None = None
        self.stepped = Stepped()
        self._engine, self._on_change = engine, on_change
        self._batch_limit = capacity.edits
        self._numbers = itertools.count()
        self._changed = Condition()
        self._closing = False
        self._open: set[Ticket] = set()
        self._arrived: list[Ticket] = []  # a heap, as the next and the last
        self._ready: list[Ticket] = []
        self._flying: list[Ticket] = []
        self._landed: list[Ticket] = []
        self._busy_since: dict[str, float] = {}
        work = {"prepare": self._prepare_all, "step": self._step_all, "finish": self._finish_all}
        self._threads = [Thread(target=run, name=f"engine-{name}", daemon=True) for name, run in work.items()]
        for thread in self._threads:
            thread.start()

    def submit(self, image: Image.Image, spec: EditSpec, *, priority: int = 0, deadline: float | None = None) -> Ticket:
        """Brings the picture to the model's size, if it has another, and hands it over. Lower `priority` is admitted
        first; `deadline` is of `time.monotonic()`. Raises InvalidParameter as `Engine.edit` does, and EngineDied."""
        image, spec = self._engine.prepare(image, spec)
        with self._changed:
            if self.died is not None or self._closing:
                raise EngineDied("the engine has stopped; another process may run the edit")
            ticket = Ticket(priority, next(self._numbers), image, spec, deadline)
            self._open.add(ticket)
            heapq.heappush(self._arrived, ticket)
            self._changed.notify_all()
        return ticket

    def preview(self, ticket: Ticket) -> Image.Image | None:
        """The picture as it would be now, small; None before the first step."""
        state = ticket.state
        return None if state is None else self._engine.preview(state)

    def prepare(self, image: Image.Image, spec: EditSpec) -> tuple[Image.Image, EditSpec]:
        """As `Engine.prepare`: once for several edits of one picture."""
        return self._engine.prepare(image, spec)

    @property
    def works(self) -> bool:
        """Whether it can still do what it has taken."""
        return self.died is None and all(thread.is_alive() for thread in self._threads)

    def busy_for(self) -> float:
        """Seconds that the present piece of work (one encoding, step or decoding) has taken, or for which its networks
        were not heard; 0 if there is none."""
        heard, now = self._engine.heartbeat.heard, time.monotonic()
        threads = {thread.name: thread.ident for thread in self._threads}
        since = [max(begun, heard(threads[f"engine-{name}"])) for name, begun in self._busy_since.copy().items()]
        return max((now - at for at in since), default=0.0)

    def hangs(self, limit_s: float) -> bool:
        """Whether a piece of work is not slow but stuck: not heard for `limit_s`, nor for SILENCE times as long as the
        networks were silent at most when the engine was warmed up."""
        return self.busy_for() > max(limit_s, SILENCE * self._engine.heartbeat.longest)

    def close(self) -> None:
        """Stops all threads after their present piece of work; edits that have not ended end with EngineDied."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self._abandon()

    # The prepare thread

    def _prepare_all(self) -> None:
        while (ticket := self._next(self._arrived)) is not None:
            self._work("prepare", ticket, self._prepare)

    def _prepare(self, ticket: Ticket) -> None:
        ticket.state = self._engine.admit(ticket.image, ticket.spec)
        ticket.progress = Progress(0, ticket.state.steps, "denoise")
        with self._changed:
            heapq.heappush(self._ready, ticket)
            self._changed.notify_all()

    # The step thread

    def _step_all(self) -> None:
        while self._wait_for_edits():
            self._drop()
            self._admit()
            for group in self._groups():
                if self.died is None:
                    self._step(group)
            self._land()
            self._on_change()

    def _wait_for_edits(self) -> bool:
        with self._changed:
            if not self._flying and not self._ready:
                self._batch_limit = self.capacity.edits
            while not (self._flying or self._ready or self._closing or self.died):
                self._changed.wait()
            return not (self._closing or self.died)

    def _drop(self) -> None:
        with self._changed:
            self._flying = [ticket for ticket in self._flying if not self._ended(ticket)]
            self._ready = [ticket for ticket in self._ready if not self._ended(ticket)]
            heapq.heapify(self._ready)

    def _admit(self) -> None:
        """First come, first served within a priority: one that does not fit yet holds back those behind it, so that a
        large picture is never overtaken for good."""
        with self._changed:
            while self._ready and self._fits(self._ready[0]):
                self._flying.append(heapq.heappop(self._ready))

    def _fits(self, ticket: Ticket) -> bool:
        cells = sum(one.cells for one in self._flying) + ticket.cells
        return not self._flying or (len(self._flying) < self.capacity.edits and cells <= self.capacity.cells)

    def _groups(self) -> Iterator[list[Ticket]]:
        """Batches of one latent size. Every edit is in one of them, so that all advance at the same pace."""
        shapes: dict[tuple[int, int], list[Ticket]] = {}
        for ticket in self._flying:
            if ticket.state is not None:
                shapes.setdefault(ticket.state.latent_size, []).append(ticket)
        limit = self._batch_limit  # out of memory in one batch makes the next round's smaller, not this one's
        for group in shapes.values():
            yield from (group[i : i + limit] for i in range(0, len(group), limit))

    def _step(self, group: list[Ticket]) -> None:
        """One step; where it fails, halves of the group are tried, until the edit that cannot be stepped is alone."""
        error, begun = None, time.monotonic()
        with self._working("step"):
            try:
                self._engine.step([ticket.state for ticket in group if ticket.state is not None])
            except Exception as caught:
                error = self._examined(caught)
        if error is None:
            steps, edits, seconds = self.stepped
            self.stepped = Stepped(steps + 1, edits + len(group), seconds + time.monotonic() - begun)
            for ticket in group:
                if (state := ticket.state) is not None:
                    ticket.progress = Progress(state.step, state.steps, "denoise")
        elif self.died is not None:
            return
        elif len(group) == 1:
            self._flying.remove(group[0])
            self._settle(group[0], error)
        else:
            half = (len(group) + 1) // 2
            if isinstance(error, OutOfMemory):
                self._batch_limit = min(self._batch_limit, half)
                log.warning("out of memory: batches of at most %d edits from now on", half)
            self._step(group[:half])
            self._step(group[half:])

    def _land(self) -> None:
        with self._changed:
            for ticket in self._flying:
                if (state := ticket.state) is not None and state.step == state.steps:
                    ticket.progress = Progress(state.steps, state.steps, "decode")
                    heapq.heappush(self._landed, ticket)
            self._flying = [ticket for ticket in self._flying if ticket.progress.stage == "denoise"]
            self._changed.notify_all()

    # The finish thread

    def _finish_all(self) -> None:
        while (ticket := self._next(self._landed)) is not None:
            self._work("finish", ticket, self._finish)

    def _finish(self, ticket: Ticket) -> None:
        assert ticket.state is not None
        self._settle(ticket, self._engine.decode(ticket.state))

    # What they share

    def _next(self, waiting: list[Ticket]) -> Ticket | None:
        """The first of a heap or list, as soon as there is one; None at the end."""
        with self._changed:
            while not (waiting or self._closing or self.died):
                self._changed.wait()
            return None if self._closing or self.died else heapq.heappop(waiting)

    def _work(self, name: str, ticket: Ticket, work: Callable[[Ticket], None]) -> None:
        """A failure is this edit's own."""
        with self._working(name):
            try:
                if not self._ended(ticket):
                    work(ticket)
            except Exception as caught:
                error = self._examined(caught)
                if self.died is None:
                    self._settle(ticket, error)
        self._on_change()

    def _ended(self, ticket: Ticket) -> bool:
        """Ends an edit that should not go on."""
        if (reason := ticket.over) is not None:
            self._settle(ticket, reason)
        return reason is not None

    def _settle(self, ticket: Ticket, outcome: Decoded | BaseException) -> None:
        """Ends the ticket's wait and frees its memory; the first outcome stays."""
        ticket.state = None
        with self._changed:
            if ticket not in self._open:
                return
            self._open.remove(ticket)
        if isinstance(outcome, BaseException):
            ticket.result.set_exception(outcome)
        else:
            ticket.result.set_result(outcome)

    def _examined(self, error: Exception) -> BaseException:
        """What an error means for the edit. It loses its traceback, whose frames would keep tensors alive."""
        if isinstance(error, EngineDied):
            self._die(error)
        if isinstance(error, FoiError):
            return error.with_traceback(None)
        if _is_out_of_memory(error):
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            hint = "this picture alone does not fit into the device's memory; send a smaller one, or fewer instructions"
            return OutOfMemory(hint)
        log.error("the engine failed", exc_info=error)
        if not self._device_lives():
            self._die(error)
        return error.with_traceback(None)

    def _device_lives(self) -> bool:
        """Some CUDA errors stay for the rest of the process: every later call fails too."""
        try:
            torch.zeros(1, device=self._engine.device).add_(1).item()
        except RuntimeError:
            return False
        return True

    def _die(self, error: Exception) -> None:
        with self._changed:
            self.died = error
            self._changed.notify_all()
        self._abandon()
        self._on_change()

    def _abandon(self) -> None:
        with self._changed:
            left = list(self._open)
        for ticket in left:
            self._settle(ticket, EngineDied("the engine stopped before the edit was done; another process may run it"))

    @contextmanager
    def _working(self, name: str) -> Iterator[None]:
        self._busy_since[name] = time.monotonic()
        try:
            yield
        finally:
            del self._busy_since[name]


def _is_out_of_memory(error: Exception) -> bool:
    """CUDA's, and the CPU allocator's, which has no type of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: " in str(error)
