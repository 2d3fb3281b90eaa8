"""Edits made by a service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import cast

from foi_cli.console import Tell, say
from foi_cli.editors import Made
from foi_cli.errors import CliError, EditError, UnusableError, UsageError
from foi_cli.tasks import Task
from foi_client import (
    ApiError,
    Client,
    EditEndedError,
    Event,
    Fields,
    File,
    FoiError,
    Info,
    ProgressEvent,
    StatusEvent,
    UnreachableError,
)

IN_FLIGHT = 8
"""Enough to fill the batches of a worker or two, and few enough for the service's other callers."""
CANCEL_TIMEOUT_S = 5.0
REFUSED = frozenset({413, 415, 422})
GONE = frozenset({404, 410})


class RemoteEditor:
    in_flight = IN_FLIGHT

    def __init__(self, client: Client, hurried: Client, model: str) -> None:
        self.model = model
        self._client, self._hurried = client, hurried
        self._lock, self._running, self._canceled = Lock(), set[str](), False

    def edit(self, task: Task, tell: Tell) -> Made:
        task.form()  # here a file that cannot be read is this task's own fault
        begun: set[str] = set()

        def hear(event: Event) -> None:
            if isinstance(event, StatusEvent) and event.edit is not None:
                begun.add(event.edit.id)
                self._began(event.edit.id)
            elif isinstance(event, ProgressEvent):
                tell(event.progress.stage, event.progress.step, event.progress.steps)

        call = self._client.masks if task.looks else self._client.edit
        try:
            with explained():
                edit = call(task.image, task.instruction, on_event=hear, **cast(Fields, task.fields))
        finally:
            with self._lock:
                self._running -= begun
        return Made(edit, self._fetch)

    def cancel(self) -> None:
        with self._lock:
            self._canceled = True
            running = list(self._running)
        for edit_id in running:
            self._cancel(edit_id)

    def _began(self, edit_id: str) -> None:
        with self._lock:
            self._running.add(edit_id)
        if self._canceled:
            self._cancel(edit_id)

    def _cancel(self, edit_id: str) -> None:
        try:
            self._hurried.cancel(edit_id)
        except FoiError as error:
            say(f"{edit_id} could not be canceled and goes on: {error}")

    def _fetch(self, file: File) -> bytes:
        with explained():
            return self._client.fetch(file)


@contextmanager
def open_remote(server: str) -> Iterator[RemoteEditor]:
    """Raises UsageError, and UnusableError for a service that is not there now."""
    model = service_info(server).model
    with Client(server) as client, Client(server, retry_for=0, timeout=CANCEL_TIMEOUT_S) as hurried:
        yield RemoteEditor(client, hurried, model)


def service_info(server: str) -> Info:
    """Asked once: whoever waits at a terminal wants to know at once. Raises UsageError and UnusableError."""
    try:
        client = Client(server, retry_for=0)
    except ValueError as error:
        raise UsageError(f"--server: {error}") from error
    with explained(), client:
        return client.info()


@contextmanager
def explained() -> Iterator[None]:
    """The client's errors as those of the command line."""
    try:
        yield
    except EditEndedError as error:
        raise EditError(str(error)) from error
    except ApiError as error:
        raise _refusal(error) from error
    except UnreachableError as error:
        raise UnusableError(f"{error}; is its address right, and does it run? `foi serve` starts one") from error
    except FoiError as error:
        raise UnusableError(str(error)) from error


def _refusal(error: ApiError) -> CliError:
    if error.status in REFUSED:
        return UsageError(error.detail or str(error))
    if error.status in GONE:
        return EditError(str(error))
    if error.status in (401, 403):
        return UnusableError(f"{error}; set FOI_API_KEY to a key of the service that may submit and read")
    return UnusableError(str(error))
