"""From a picture, what to change in it, and fields, to the form that is sent."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, TypedDict

EndEvent = Literal["edit.succeeded", "edit.failed", "edit.canceled"]


class Savable(Protocol):
    """A picture of Pillow."""

    def save(self, fp: BinaryIO, format: str) -> None: ...  # noqa: A002  # Pillow's name


class Readable(Protocol):
    """A file that is open for reading bytes."""

    def read(self) -> bytes: ...


ImageSource = str | os.PathLike[str] | bytes | Readable | Savable
"""A path, a file's bytes (PNG, JPEG or WEBP), an open file, or a picture of Pillow, which is sent as PNG."""


@dataclass(frozen=True)
class SubInstruction:
    """One atomic edit. `keyword`: the words whose attention finds the region, else the service finds them.
    `intensity`: alpha of Eq. 6 of Guo and Lin (2024), 1 where omitted. `mask`: where it may change the picture, of the
    picture's size, white = may change."""

    text: str
    keyword: str | None = None
    intensity: float | None = None
    mask: ImageSource | None = None


Instructions = str | SubInstruction | Sequence[str | SubInstruction]
"""A text, which the service splits into its parts; or the parts, none of which is split."""


class Fields(TypedDict, total=False):
    """The other fields of a submit, in its own words; what is left out is the service's default (`Client.info`).

    `threshold`: tau, a number or the range (low, high) that it is drawn from. `deadline_s`: seconds from now.
    `metadata`: JSON, echoed as it is. `image_url`: where the service is to fetch the picture; `image` is None then.
    """

    image_url: str
    num_inference_steps: int
    strength: float
    guidance_scale: float
    image_guidance_scale: float
    seed: int
    threshold: float | tuple[float, float]
    method: Literal["foi", "ip2p"]
    preset: Literal["default", "paper"]
    mask_at: float
    modulation_end: float
    disentangle_end: float
    preserve_outside_mask: bool
    n: int
    output_size: Literal["input", "model"]
    output_format: Literal["png", "jpeg", "webp"]
    output_quality: int
    priority: Literal["high", "normal", "low"]
    deadline_s: int
    previews: bool
    webhook_url: str
    webhook_events: Sequence[EndEvent]
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Form:
    """Everything is in memory, so that it can be sent again."""

    texts: dict[str, str]
    files: dict[str, tuple[str, bytes, str]]


def form(image: ImageSource | None, instruction: Instructions, fields: Fields) -> Form:
    """Reads files. Raises OSError and TypeError; what is wrong with the values is for the service to say."""
    texts = {name: _text(name, value) for name, value in fields.items()}
    files = {} if image is None else {"image": _file(image)}
    if isinstance(instruction, str):
        texts["instruction"] = instruction
        return Form(texts, files)
    parts = [instruction] if isinstance(instruction, SubInstruction) else list(instruction)
    entries = []
    for i, part in enumerate(parts, start=1):
        given = SubInstruction(part) if isinstance(part, str) else part
        entry = {"text": given.text, "keyword": given.keyword, "intensity": given.intensity}
        if given.mask is not None:
            entry["mask"] = f"mask-{i}"
            files[f"mask-{i}"] = _file(given.mask)
        entries.append({name: value for name, value in entry.items() if value is not None})
    texts["instructions"] = json.dumps(entries)
    return Form(texts, files)


def _file(source: ImageSource) -> tuple[str, bytes, str]:
    """The name of a local file is nobody's business, and the service looks at the bytes."""
    return "image", _bytes(source), "application/octet-stream"


def _bytes(source: ImageSource) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, str | os.PathLike):
        return Path(source).read_bytes()
    if hasattr(source, "save"):
        buffer = io.BytesIO()
        source.save(buffer, "PNG")
        return buffer.getvalue()
    content = source.read()
    if not isinstance(content, bytes):
        raise TypeError("the file is open for reading text; open it with mode 'rb'")
    return content


def _text(name: str, value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case (low, high) if name == "threshold":
            return f"{low}-{high}"
        case Mapping():
            return json.dumps(dict(value), ensure_ascii=False)
        case list() | tuple():
            return ",".join(value)
    return str(value)
