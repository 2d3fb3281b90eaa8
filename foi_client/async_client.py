"""The asynchronous client."""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import anyio
import httpx
from anyio import CancelScope, to_thread

from foi_client import files, flows
from foi_client.client import OnEvent
from foi_client.events import Event
from foi_client.files import Downloaded
from foi_client.forms import Fields, ImageSource, Instructions
from foi_client.models import Delivery, Edit, File, Info
from foi_client.settings import Connection
from foi_client.steps import Close, Emit, Ended, Flow, Open, Read, Send, Sleep, Step, Work, advance, build, fail

T = TypeVar("T")


class AsyncClient:
    """As `Client`, whose methods say what these do. `on_event` may be a coroutine function. Leave `stream` and `list`
    early only under `contextlib.aclosing`, as every asynchronous generator."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 60,
        retry_for: float = 60,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._connection = Connection.of(base_url, api_key, timeout, retry_for)
        self._http = httpx.AsyncClient(
            base_url=self._connection.base_url, headers=self._connection.headers, transport=transport
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def submit(
        self,
        image: ImageSource | None,
        instruction: Instructions,
        *,
        idempotency_key: str | None = None,
        **fields: Unpack[Fields],
    ) -> Edit:
        flow = flows.submit("/v1/edits", image, instruction, fields, idempotency_key, self._connection.patience())
        return await self._run(flow)

    async def edit(
        self,
        image: ImageSource | None,
        instruction: Instructions,
        *,
        timeout: float | None = None,
        on_event: OnEvent | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[Fields],
    ) -> Edit:
        patience = self._connection.patience(timeout)
        flow = flows.finished("/v1/edits", image, instruction, fields, idempotency_key, patience)
        return await self._run(flow, on_event)

    async def masks(
        self,
        image: ImageSource | None,
        instruction: Instructions,
        *,
        timeout: float | None = None,
        on_event: OnEvent | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[Fields],
    ) -> Edit:
        patience = self._connection.patience(timeout)
        flow = flows.finished("/v1/masks", image, instruction, fields, idempotency_key, patience)
        return await self._run(flow, on_event)

    async def get(self, edit: Edit | str) -> Edit:
        return await self._run(flows.get(edit, self._connection.patience()))

    async def wait(self, edit: Edit | str, timeout: float | None = None, on_event: OnEvent | None = None) -> Edit:
        return await self._run(flows.wait(edit, self._connection.patience(timeout)), on_event)

    def stream(self, edit: Edit | str) -> AsyncGenerator[Event, None]:
        return self._each(flows.stream(edit, self._connection.patience()))

    def list(self, *statuses: str) -> AsyncGenerator[Edit, None]:
        return self._each(flows.list_edits(statuses, self._connection.patience()))

    async def cancel(self, edit: Edit | str) -> Edit:
        return await self._run(flows.cancel(edit, self._connection.patience()))

    async def delete(self, edit: Edit | str) -> None:
        await self._run(flows.delete(edit, self._connection.patience()))

    async def fetch(self, file: File) -> bytes:
        return await self._run(files.fetch(file, self._connection.patience()))

    async def download(self, edit: Edit | str, folder: str | os.PathLike[str]) -> Downloaded:
        return await self._run(files.download(edit, folder, self._connection.patience()))

    async def deliveries(self, edit: Edit | str) -> tuple[Delivery, ...]:
        return await self._run(flows.deliveries(edit, self._connection.patience()))

    async def redeliver(self, edit: Edit | str) -> tuple[Delivery, ...]:
        return await self._run(flows.redeliver(edit, self._connection.patience()))

    async def info(self) -> Info:
        return await self._run(flows.info(self._connection.patience()))

    async def _run(self, flow: Flow[T], on_event: OnEvent | None = None) -> T:
        async with aclosing(self._drive(flow)) as steps:
            async for step in steps:
                if isinstance(step, Ended):
                    return step.value
                if on_event is not None and inspect.isawaitable(told := on_event(step.value)):
                    await told
        raise AssertionError("a flow ends with Ended")

    async def _each(self, flow: Flow[None]) -> AsyncGenerator[Any, None]:
        async with aclosing(self._drive(flow)) as steps:
            async for step in steps:
                if isinstance(step, Emit):
                    yield step.value

    async def _drive(self, flow: Flow[T]) -> AsyncGenerator[Emit[Any] | Ended[T], None]:
        wire = _Wire(self._http)
        try:
            step = advance(flow)
            while not isinstance(step, Ended):
                if isinstance(step, Emit):
                    yield step
                    step = advance(flow)
                    continue
                try:
                    result = await wire.perform(step)
                except httpx.RequestError as error:
                    step = fail(flow, error)
                else:
                    step = advance(flow, result)
            yield step
        finally:
            with CancelScope(shield=True):
                await wire.close()


class _Wire:
    """What one flow does outside; at most one answer is open."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._opened: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes]

    async def perform(self, step: Step) -> Any:
        """The step's result. Raises httpx.RequestError."""
        match step:
            case Send(request):
                return await self._http.send(build(self._http, request), follow_redirects=request.follow)
            case Open(request):
                await self.close()
                self._opened = await self._http.send(build(self._http, request), stream=True)
                self._chunks = self._opened.aiter_bytes()
                if not self._opened.is_success:
                    await self._opened.aread()
                return self._opened
            case Read():
                return await anext(self._chunks, None)
            case Close():
                await self.close()
            case Sleep(seconds):
                await anyio.sleep(seconds)
            case Work(call):
                return await to_thread.run_sync(call)
        return None

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.aclose()
            self._opened = None
