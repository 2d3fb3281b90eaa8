"""The events of an edit: from bytes to frames (Server-Sent Events, HTML Living Standard), from frames to types."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from foi_client.models import Edit, Mask, Model, Output, Progress, Raw
from foi_client.reading import read, read_edit

# Not str.splitlines, which httpx's iter_lines uses: an instruction may hold U+2028.
_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")


class Frame(NamedTuple):
    id: str
    type: str
    data: str


class FrameParser:
    """Of one connection: what it has not heard to its end is dropped with it, and comes again on the next."""

    def __init__(self) -> None:
        self._rest = b""
        self._id = ""
        self._type = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """The frames that end in this chunk, which may begin and end anywhere."""
        *lines, self._rest = _LINE_END.split(self._rest + chunk)
        for line in lines:
            if line:
                self._take(line.decode())
                continue
            if self._data:
                yield Frame(self._id, self._type or "message", "\n".join(self._data))
            self._type, self._data = "", []

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            self._id = value
        elif name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)


@dataclass(frozen=True, kw_only=True)
class Event(Model):
    """One of a kind that this client does not know is just this. `id` is empty where the edit is polled."""

    id: str
    type: str


@dataclass(frozen=True, kw_only=True)
class StatusEvent(Event):
    """`edit` is there in the first one: the whole edit as it is then."""

    status: str
    edit: Edit | None


@dataclass(frozen=True, kw_only=True)
class ProgressEvent(Event):
    progress: Progress


@dataclass(frozen=True, kw_only=True)
class PreviewEvent(Event):
    """The picture on its way; `url` is a data URL."""

    url: str

    @property
    def image(self) -> bytes:
        """A small JPEG."""
        return base64.b64decode(self.url.partition(",")[2])


@dataclass(frozen=True, kw_only=True)
class MaskEvent(Event):
    mask: Mask


@dataclass(frozen=True, kw_only=True)
class OutputEvent(Event):
    output: Output


@dataclass(frozen=True, kw_only=True)
class DoneEvent(Event):
    """Always the last."""

    status: str


def read_event(frame: Frame) -> Event:
    """Raises ValueError and KeyError for what is none of the service's."""
    return event(frame.type, json.loads(frame.data), frame.id)


def event(kind: str, raw: Raw, event_id: str = "") -> Event:
    """`raw` is what the stream has as its data."""
    match kind:
        case "status":
            edit = read_edit(raw) if "id" in raw else None
            return StatusEvent(id=event_id, type=kind, raw=raw, status=raw["status"], edit=edit)
        case "progress":
            return ProgressEvent(id=event_id, type=kind, raw=raw, progress=read(Progress, raw))
        case "preview":
            return PreviewEvent(id=event_id, type=kind, raw=raw, url=raw["url"])
        case "mask":
            return MaskEvent(id=event_id, type=kind, raw=raw, mask=read(Mask, raw))
        case "output":
            return OutputEvent(id=event_id, type=kind, raw=raw, output=read(Output, raw))
        case "done":
            return DoneEvent(id=event_id, type=kind, raw=raw, status=raw["status"])
    return Event(id=event_id, type=kind, raw=raw)


def changes(before: Edit | None, after: Edit) -> Iterator[Event]:
    """The events between two looks at an edit, as far as they can be seen from them."""
    if before is None or before.status != after.status:
        yield event("status", after.raw)
    if after.progress is not None and (before is None or before.progress != after.progress):
        yield event("progress", after.progress.raw)
    if after.ended:
        for mask in after.masks:
            yield event("mask", mask.raw)
        for output in after.outputs:
            yield event("output", output.raw)
        yield event("done", {"status": after.status})
