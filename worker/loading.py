"""The engine that the settings ask for, warm; or one line that says why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from foi_core.errors import EngineDied, InvalidParameter, ModelFailure, UnsupportedCheckpoint
from jobs.settings import Settings

if TYPE_CHECKING:  # they import torch
    from foi_core.batching import Capacity
    from foi_core.engine import Engine


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

    with _explained(settings):
        return Capacity.measured(engine, settings.max_in_flight)


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
