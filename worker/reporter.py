"""Tells Redis of every step of every running edit, in one round trip for all of them, and hears which should stop."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, get_args

from PIL import Image

from foi_core.errors import EditCanceled, FoiError
from foi_core.result import Progress as EngineProgress
from foi_core.result import Stage
from jobs.connection import RedisError
from jobs.logs import get_logger
from jobs.records import Progress
from jobs.repository import EditRepository, Reply, Report

if TYPE_CHECKING:  # it imports torch
    from foi_core.batching import Ticket
    from foi_core.finishing import Decoded

LISTEN_S = 0.5
"""An edit that makes no progress is reported so often all the same, to hear whether it should stop."""
PREVIEW_S = 0.5
PREVIEW_SIDE = 256
PREVIEW_QUALITY = 70
_STAGES: tuple[str, ...] = get_args(Stage)

log = get_logger(__name__)


class AttemptLost(FoiError):
    """Another worker has the edit, or it has ended: nothing that this attempt says counts."""


@dataclass
class Watched:
    """One running edit: its tickets, one for each output, and what was last told of them.

    Any step of any of them is told, to hear whether they should stop; shown are the steps of
    all of them together. `preview` shows the first.
    """

    edit_id: str
    attempt: int
    tickets: Sequence[Ticket]
    preview: Callable[[], Image.Image | None] | None
    told: Sequence[EngineProgress] = ()
    told_at: float = 0.0
    shown_at: float = 0.0

    @property
    def progress(self) -> list[EngineProgress]:
        return [one.progress for one in self.tickets]

    def stop(self, reason: FoiError) -> None:
        for one in self.tickets:
            one.stop(reason)

    def results(self) -> list[Decoded]:
        """Waits for all outputs. The first that ends without one ends the others too, and its error is the edit's."""
        futures = [one.result for one in self.tickets]
        done, running = wait(futures, return_when=FIRST_EXCEPTION)
        failed = [future for future in futures if future in done and future.exception() is not None]
        if failed:
            self.stop(EditCanceled("another output of the edit failed"))
            wait(running)
            failed[0].result()
        return [future.result() for future in futures]

    def due(self) -> bool:
        return self.progress != self.told or time.monotonic() - self.told_at > LISTEN_S

    def report(self) -> Report:
        now, preview = time.monotonic(), ""
        denoises = self.tickets[0].progress.stage == "denoise"
        if self.preview is not None and denoises and now - self.shown_at > PREVIEW_S:
            shown = self.preview()
            preview, self.shown_at = (_data_url(shown), now) if shown is not None else ("", self.shown_at)
        self.told, self.told_at = self.progress, now
        stages = sorted({one.stage for one in self.told}, key=_STAGES.index)
        shown_progress = Progress(
            step=sum(one.step for one in self.told),
            steps=sum(one.steps for one in self.told),
            stage=stages[0] if len(stages) == 1 else "denoise",
        )
        return Report(self.edit_id, self.attempt, shown_progress, preview)


class Reporter:
    """One thread. The engine calls `changed` after every step and never waits for Redis."""

    def __init__(self, repository: EditRepository) -> None:
        self._repository = repository
        self._lock = Lock()
        self._watched: dict[str, Watched] = {}
        self._stopping: FoiError | None = None
        self._news, self._done = Event(), False
        self._thread = Thread(target=self._run, name="reporter", daemon=True)
        self._thread.start()

    @property
    def works(self) -> bool:
        """Without its thread no edit would be heard of, or hear that it should stop."""
        return self._thread.is_alive()

    def changed(self) -> None:
        self._news.set()

    def watch(self, one: Watched) -> None:
        with self._lock:
            self._watched[one.edit_id] = one
            if self._stopping is not None:
                one.stop(self._stopping)
        self._news.set()

    def forget(self, edit_id: str) -> None:
        with self._lock:
            self._watched.pop(edit_id, None)

    def stop_all(self, reason: FoiError) -> None:
        """Every edit that is in the engine, or still comes, ends with `reason`."""
        with self._lock:
            self._stopping = reason
            for one in self._watched.values():
                one.stop(reason)

    def hand_back(self) -> None:
        """For a process that ends with steps that could not be stopped in time: its edits did not kill it."""
        with self._lock:
            rest = list(self._watched.values())
        try:
            for one in rest:
                self._repository.release(one.edit_id, one.attempt, blameless=True)
        except RedisError as error:
            log.warning("edits not handed back, their leases will end", reason=str(error))

    def close(self) -> None:
        self._done = True
        self._news.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done:
            self._news.wait(LISTEN_S)
            self._news.clear()
            with self._lock:
                due = [one for one in self._watched.values() if one.due()]
            if due:
                try:
                    self._tell(due)
                except Exception:
                    log.exception("progress not written: an unexpected error")

    def _tell(self, due: list[Watched]) -> None:
        reports = [_report(one) for one in due]
        try:
            replies = self._repository.report(reports)
        except RedisError as error:
            log.warning("progress not written", reason=str(error))
            return
        for one, reply in zip(due, replies, strict=True):
            if reply == Reply.CANCELED:
                one.stop(EditCanceled("its caller canceled it"))
            elif reply == Reply.LOST:
                one.stop(AttemptLost("the attempt is no longer the newest"))


def _report(one: Watched) -> Report:
    """A preview that cannot be made is the last of its edit, and costs nothing else."""
    try:
        return one.report()
    except Exception:
        log.exception("no more previews of this edit", edit_id=one.edit_id)
        one.preview = None
        return one.report()


def _data_url(image: Image.Image) -> str:
    factor = max(1, PREVIEW_SIDE // max(image.size))
    larger = image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    larger.save(buffer, "JPEG", quality=PREVIEW_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
