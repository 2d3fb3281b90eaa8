"""The engine that the settings ask for, warm; or one line that says why there is none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, Self

from foi_core.errors import EngineDied, InvalidParameter, ModelFailure, UnsupportedCheckpoint
from foi_core.result import Progress
from jobs.logs import get_logger
from jobs.settings import Settings

if TYPE_CHECKING:  # they import torch
    from foi_core.batching import Capacity
    from foi_core.engine import Engine

EVERY_S = 10.0
log = get_logger(__name__)


class UnusableModelError(Exception):
    """The settings' model cannot be used here, and loading it again would not help; says what to do."""


def load_engine(settings: Settings, device: str) -> Engine:
    """Raises UnusableModelError."""
    from foi_core.engine import Engine  # here, because it takes seconds

    with _explained(settings):
        return Engine.load(
            settings.model,
            device,
            settings.dtype,
            revision=settings.model_revision,
            allow_pickle=settings.allow_pickle,
            safety_checker=settings.safety_checker,
            execution=settings.execution,
        )


def warm_up(settings: Settings, engine: Engine) -> Capacity:
    """What the engine has room for. Raises UnusableModelError."""
    from foi_core.batching import Capacity  # as above

    with _explained(settings), _Progress() as progress:
        return Capacity.measured(engine, settings.max_in_flight, progress.tell)


class _Progress:
    """Tells the log every EVERY_S what is done, and for how long: a warm-up takes minutes where a model is too large
    for its device."""

    def __enter__(self) -> Self:
        self._begun, self._done, self._now = time.monotonic(), Event(), "encode"
        log.info("warm-up begins")
        Thread(target=self._say, name="warm-up", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        log.info("warm-up ended", seconds=self._seconds)

    def tell(self, progress: Progress) -> None:
        step = f" step {progress.step + 1} of {progress.steps}" if progress.stage == "denoise" else ""
        self._now = progress.stage + step

    @property
    def _seconds(self) -> float:
        return round(time.monotonic() - self._begun, 1)

    def _say(self) -> None:
        while not self._done.wait(EVERY_S):
            log.info("warm-up goes on", work=self._now, seconds=self._seconds)


@contextmanager
def _explained(settings: Settings) -> Iterator[None]:
    try:
        yield
    except (UnsupportedCheckpoint, ModelFailure) as error:
        raise UnusableModelError(f"the model {settings.model!r} cannot be used: {error}") from error
    except EngineDied as error:
        raise UnusableModelError(str(error)) from error
    except InvalidParameter as error:  # of a setting that the engine has, like FOI_DEVICE
        raise UnusableModelError(f"FOI_{error.field.upper()}: {error}") from error
