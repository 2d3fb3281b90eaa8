"""The body of a submit: multipart, read with bounded memory and time, every part of it accounted for."""

from __future__ import annotations

import asyncio
import codecs
import hashlib
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from foi_core.spec import MAX_SUB_INSTRUCTIONS
from jobs.settings import Settings
from service.problems import Problem

MAX_FILES = 1 + MAX_SUB_INSTRUCTIONS
MAX_FIELDS = 40
MAX_FIELD_BYTES = 64 * 1024
LINGER_S = 2


@dataclass(frozen=True)
class Form:
    """Texts by name in the order they came, and files by name."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, UploadFile] = field(default_factory=dict)

    def fingerprint(self, *context: object) -> str:
        """Stands for everything in it that makes a difference, and for the `context`: SHA-256."""
        files = {name: hashlib.sha256(file.file.read()).hexdigest() for name, file in self.files.items()}
        for file in self.files.values():
            file.file.seek(0)
        return hashlib.sha256(json.dumps([self.texts, files, *context], sort_keys=True).encode()).hexdigest()


class _StrictParser(MultiPartParser):
    """Starlette's parser reads bad UTF-8 as Latin-1, which would edit a picture by a garbled text, and a body that was
    cut off as if its last part had never been sent."""

    complete = False

    def on_end(self) -> None:
        self.complete = True
        super().on_end()

    def on_part_end(self) -> None:
        if self._current_part.file is None:
            try:
                codecs.utf_8_decode(self._current_part.data, "strict", True)
            except UnicodeDecodeError:
                raise MultiPartException("A text field is not valid UTF-8.") from None
        super().on_part_end()


async def read_form(request: Request, settings: Settings) -> Form:
    """Large files go to temporary files; nothing beyond the limits is read."""
    media_type, _ = parse_options_header(request.headers.get("content-type"))
    if media_type != b"multipart/form-data":
        raise Problem("unsupported-media-type", "send the picture and the fields as multipart/form-data")
    try:
        async with (
            asyncio.timeout(settings.upload_timeout_s),
            aclosing(_bounded(request, settings.max_body_bytes)) as stream,
        ):
            limits = {"max_files": MAX_FILES, "max_fields": MAX_FIELDS, "max_part_size": MAX_FIELD_BYTES}
            parser = _StrictParser(request.headers, stream, **limits)
            data = await parser.parse()
    except TimeoutError:
        raise Problem("request-timeout", f"the body must arrive within {settings.upload_timeout_s} s") from None
    except MultiPartException as error:
        raise Problem("malformed-body", error.message) from None
    try:
        if not parser.complete:
            raise Problem("malformed-body", "the body ends before its last boundary")
        return _sorted_out(data)
    except Problem:
        await data.close()
        raise


async def close(form: Form) -> None:
    """Removes the temporary files."""
    for file in form.files.values():
        await file.close()


async def _bounded(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    declared = request.headers.get("content-length", "")
    total = int(declared[:20]) if declared.isdecimal() else 0
    async with aclosing(request.stream()) as stream:
        if total <= limit:
            total = 0
            async for chunk in stream:
                total += len(chunk)
                if total > limit:
                    break
                yield chunk
        if total > limit:
            if "expect" not in request.headers:  # else the caller waits to be told before it sends
                await _linger(stream)
            raise Problem("payload-too-large", f"at most {limit} bytes")


async def _linger(stream: AsyncGenerator[bytes, None]) -> None:
    """Drops what still comes, for a moment: a caller that is cut off while it sends often misses the answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            async for _ in stream:
                pass


def _sorted_out(data: FormData) -> Form:
    form = Form()
    for name, value in data.multi_items():
        if isinstance(value, str):
            form.texts.setdefault(name, []).append(value)
        elif name in form.files:
            raise Problem(
                "invalid-parameter", f"{name}: given twice", [{"pointer": f"/{name}", "detail": "given twice"}]
            )
        else:
            form.files[name] = value
    return form
