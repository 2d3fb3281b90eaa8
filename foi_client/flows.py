"""Every call of the client, as a flow."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar
from urllib.parse import quote

import httpx

from foi_client.errors import AnswerError, ApiError
from foi_client.events import changes
from foi_client.forms import Fields, ImageSource, Instructions, form
from foi_client.listening import listen
from foi_client.models import Delivery, Edit, Info, Raw
from foi_client.patience import Patience
from foi_client.reading import read, read_deliveries, read_edit
from foi_client.retries import refusal, retry_after
from foi_client.steps import Emit, Flow, Request, Send, Work

T = TypeVar("T")
POLL_S = 1.0
PAGE = 100


def edit_path(edit: Edit | str) -> str:
    return f"/v1/edits/{quote(edit if isinstance(edit, str) else edit.id, safe='')}"


def call(request: Request, patience: Patience) -> Flow[httpx.Response]:
    """The first success. Raises ApiError, UnreachableError, WaitTimeout."""
    while True:
        try:
            response: httpx.Response = yield Send(replace(request, timeout=patience.timeout()))
        except httpx.RequestError as error:
            failure = refusal(request, error)
        else:
            if response.is_success:
                patience.heard()
                return response
            failure = refusal(request, response)
        yield from patience.again(failure)


def understood(response: httpx.Response, reader: Callable[[Raw], T]) -> T:
    """Raises AnswerError."""
    try:
        return reader(response.json())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{response.request.url}: the answer is none of this service's ({error!r}); is base_url right?"
        raise AnswerError(reason) from error


def get(edit: Edit | str, patience: Patience) -> Flow[Edit]:
    response = yield from call(Request("GET", edit_path(edit)), patience)
    return understood(response, read_edit)


def submit(
    path: str,
    image: ImageSource | None,
    instruction: Instructions,
    fields: Fields,
    idempotency_key: str | None,
    patience: Patience,
) -> Flow[Edit]:
    """The key makes it safe to send it until an answer comes."""
    headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
    made = yield Work(partial(form, image, instruction, fields))
    response = yield from call(Request("POST", path, headers=headers, form=made), patience)
    return understood(response, read_edit)


def finished(
    path: str,
    image: ImageSource | None,
    instruction: Instructions,
    fields: Fields,
    idempotency_key: str | None,
    patience: Patience,
) -> Flow[Edit]:
    """Submitted, waited for, and succeeded."""
    edit = yield from submit(path, image, instruction, fields, idempotency_key, patience)
    edit = yield from wait(edit, patience)
    return edit.raise_for_status()


def wait(edit: Edit | str, patience: Patience) -> Flow[Edit]:
    """Emits the events. The edit as it ended; polled where the service opens no further stream for us."""
    patience.edit_id = edit if isinstance(edit, str) else edit.id
    try:
        yield from listen(edit_path(edit), patience, wait_for_quota=False)
    except ApiError as refused:
        if refused.status != httpx.codes.TOO_MANY_REQUESTS:
            raise
        return (yield from _poll(edit, patience))
    return (yield from get(edit, patience))


def _poll(edit: Edit | str, patience: Patience) -> Flow[Edit]:
    seen: Edit | None = None
    while True:
        response = yield from call(Request("GET", edit_path(edit)), patience)
        now = understood(response, read_edit)
        for event in changes(seen, now):
            yield Emit(event)
        if now.ended:
            return now
        seen = now
        yield from patience.pause(retry_after(response) or POLL_S)


def stream(edit: Edit | str, patience: Patience) -> Flow[None]:
    """Emits the events."""
    yield from listen(edit_path(edit), patience, wait_for_quota=True)


def cancel(edit: Edit | str, patience: Patience) -> Flow[Edit]:
    response = yield from call(Request("POST", f"{edit_path(edit)}/cancel"), patience)
    return understood(response, read_edit)


def delete(edit: Edit | str, patience: Patience) -> Flow[None]:
    try:
        yield from call(Request("DELETE", edit_path(edit)), patience)
    except ApiError as error:
        if error.kind != "expired" or patience.failures == 0:
            raise
        # Gone by an earlier try, whose answer was lost.


def list_edits(statuses: Sequence[str], patience: Patience) -> Flow[None]:
    """Emits the edits, page by page."""
    chosen = tuple(("status", status) for status in statuses)
    cursor: str | None = None
    while True:
        place = () if cursor is None else (("cursor", cursor),)
        request = Request("GET", "/v1/edits", params=(("limit", str(PAGE)), *chosen, *place))
        response = yield from call(request, patience)
        edits, cursor = understood(response, _read_page)
        for edit in edits:
            yield Emit(edit)
        if cursor is None:
            return


def deliveries(edit: Edit | str, patience: Patience) -> Flow[tuple[Delivery, ...]]:
    response = yield from call(Request("GET", f"{edit_path(edit)}/deliveries"), patience)
    return understood(response, read_deliveries)


def redeliver(edit: Edit | str, patience: Patience) -> Flow[tuple[Delivery, ...]]:
    """Not repeatable: the receiver would hear it twice."""
    response = yield from call(Request("POST", f"{edit_path(edit)}/redeliver", repeatable=False), patience)
    return understood(response, read_deliveries)


def info(patience: Patience) -> Flow[Info]:
    response = yield from call(Request("GET", "/v1/info"), patience)
    return understood(response, partial(read, Info))


def _read_page(raw: Raw) -> tuple[list[Edit], str | None]:
    return [read_edit(one) for one in raw["data"]], raw["next_cursor"]
