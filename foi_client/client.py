"""The synchronous client."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from foi_client import files, flows
from foi_client.events import Event
from foi_client.files import Downloaded
from foi_client.forms import Fields, ImageSource, Instructions
from foi_client.models import Delivery, Edit, File, Info
from foi_client.settings import Connection
from foi_client.steps import Close, Emit, Ended, Flow, Open, Read, Send, Sleep, Step, Work, advance, build, fail

T = TypeVar("T")
OnEvent = Callable[[Event], object]


class Client:
    """Asks one service; may be shared by threads. Every call raises FoiError's kinds and nothing of httpx.

    `base_url` and `api_key` are taken from FOI_SERVER and FOI_API_KEY where they are None. `timeout`: seconds for one
    answer. `retry_for`: seconds for which a service that cannot be reached, or is too busy, is asked again; 0: never.
    `transport`: httpx's, for proxies and certificates of one's own.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 60,
        retry_for: float = 60,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._connection = Connection.of(base_url, api_key, timeout, retry_for)
        self._http = httpx.Client(
            base_url=self._connection.base_url, headers=self._connection.headers, transport=transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def submit(
        self,
        image: ImageSource | None,
        instruction: Instructions,
        *,
        idempotency_key: str | None = None,
        **fields: Unpack[Fields],
    ) -> Edit:
        """The queued edit. One text is split into its instructions by the service; a list of texts or SubInstructions
        is taken as it is. However often it has to be sent, one edit is made; with an `idempotency_key` of your own
        also if your program is started again."""
        flow = flows.submit("/v1/edits", image, instruction, fields, idempotency_key, self._connection.patience())
        return self._run(flow)

    def edit(
        self,
        image: ImageSource | None,
        instruction: Instructions,
        *,
        timeout: float | None = None,
        on_event: OnEvent | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[Fields],
    ) -> Edit:
        """`submit` and `wait`. Raises EditFailed and EditCanceled; WaitTimeout after `timeout` seconds for both."""
        patience = self._connection.patience(timeout)
        flow = flows.finished("/v1/edits", image, instruction, fields, idempotency_key, patience)
        return self._run(flow, on_event)

    def masks(
        self,
        image: ImageSource | None,
        instruction: Instructions,
        *,
        timeout: float | None = None,
        on_event: OnEvent | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[Fields],
    ) -> Edit:
        """Where an edit of the same fields and seed would act: `.masks`, and no outputs. As `edit`, in one step."""
        patience = self._connection.patience(timeout)
        flow = flows.finished("/v1/masks", image, instruction, fields, idempotency_key, patience)
        return self._run(flow, on_event)

    def get(self, edit: Edit | str) -> Edit:
        """The edit as it is now."""
        return self._run(flows.get(edit, self._connection.patience()))

    def wait(self, edit: Edit | str, timeout: float | None = None, on_event: OnEvent | None = None) -> Edit:
        """The edit as it has ended, well or not (`Edit.raise_for_status`). Raises WaitTimeout, at most two seconds
        late. `on_event` gets the events; where the key has no event stream left, those that polling shows."""
        return self._run(flows.wait(edit, self._connection.patience(timeout)), on_event)

    def stream(self, edit: Edit | str) -> Generator[Event, None, None]:
        """The events, each once, to `done`; connections that break and restarts of the service are not noticed."""
        return self._each(flows.stream(edit, self._connection.patience()))

    def list(self, *statuses: str) -> Iterator[Edit]:
        """The caller's edits, the newest first; only of these statuses, where some are given."""
        return self._each(flows.list_edits(statuses, self._connection.patience()))

    def cancel(self, edit: Edit | str) -> Edit:
        """Canceled at once if it waits, `canceling` if it runs; one that has ended stays as it is."""
        return self._run(flows.cancel(edit, self._connection.patience()))

    def delete(self, edit: Edit | str) -> None:
        """Removes it with its files; cancels it first."""
        self._run(flows.delete(edit, self._connection.patience()))

    def fetch(self, file: File) -> bytes:
        """An output, a mask or an attention map. Raises DownloadError for bytes that are not the service's."""
        return self._run(files.fetch(file, self._connection.patience()))

    def download(self, edit: Edit | str, folder: str | os.PathLike[str]) -> Downloaded:
        """Outputs and masks of an edit that has succeeded, under their names (`result.png`, `mask-1.png`), over what
        is there. Raises DownloadError, NotEndedError, EditFailed, EditCanceled."""
        return self._run(files.download(edit, folder, self._connection.patience()))

    def deliveries(self, edit: Edit | str) -> tuple[Delivery, ...]:
        """What the edit's webhook was told."""
        return self._run(flows.deliveries(edit, self._connection.patience()))

    def redeliver(self, edit: Edit | str) -> tuple[Delivery, ...]:
        """Sends the edit's webhook again, under the same `webhook-id`."""
        return self._run(flows.redeliver(edit, self._connection.patience()))

    def info(self) -> Info:
        """The service's model, limits, defaults and queue."""
        return self._run(flows.info(self._connection.patience()))

    def _run(self, flow: Flow[T], on_event: OnEvent | None = None) -> T:
        steps = self._drive(flow)
        for step in steps:
            if isinstance(step, Ended):
                return step.value
            if on_event is not None:
                on_event(step.value)
        raise AssertionError("a flow ends with Ended")

    def _each(self, flow: Flow[None]) -> Generator[Any, None, None]:
        for step in self._drive(flow):
            if isinstance(step, Emit):
                yield step.value

    def _drive(self, flow: Flow[T]) -> Generator[Emit[Any] | Ended[T], None, None]:
        wire = _Wire(self._http)
        try:
            step = advance(flow)
            while not isinstance(step, Ended):
                if isinstance(step, Emit):
                    yield step
                    step = advance(flow)
                    continue
                try:
                    result = wire.perform(step)
                except httpx.RequestError as error:
                    step = fail(flow, error)
                else:
                    step = advance(flow, result)
            yield step
        finally:
            wire.close()


class _Wire:
    """What one flow does outside; at most one answer is open."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._opened: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

    def perform(self, step: Step) -> Any:
        """The step's result. Raises httpx.RequestError."""
        match step:
            case Send(request):
                return self._http.send(build(self._http, request), follow_redirects=request.follow)
            case Open(request):
                self.close()
                self._opened = self._http.send(build(self._http, request), stream=True)
                self._chunks = self._opened.iter_bytes()
                if not self._opened.is_success:
                    self._opened.read()
                return self._opened
            case Read():
                return next(self._chunks, None)
            case Close():
                self.close()
            case Sleep(seconds):
                time.sleep(seconds)
            case Work(call):
                return call()
        return None

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None
