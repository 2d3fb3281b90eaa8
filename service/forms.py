"""The body of a submit: multipart, read with bounded memory and time, every part of it accounted for."""

from __future__ import annotations

import asyncio
import codecs
import hashlib
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from foi_core.errors import InvalidParameter
from foi_core.spec import MAX_SUB_INSTRUCTIONS
from jobs.settings import Settings
from service.problems import Problem, invalid

MAX_FILES = 1 + MAX_SUB_INSTRUCTIONS
MAX_FIELDS = 40
MAX_FIELD_BYTES = 64 * 1024
MAX_NAME_LENGTH = 100
LINGER_S = 2
_NOT_AS_SAID = (
    "the body is not made of the parts that the Content-Type's boundary divides; let the HTTP client write both"
)


@dataclass(frozen=True)
class Form:
    """Texts by name in the order they came, and files by name."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, UploadFile] = field(default_factory=dict)

    def fingerprint(self, *context: object) -> str:
        """Stands for everything in it that makes a difference, and for the `context`: SHA-256."""
        files = {name: hashlib.file_digest(file.file, "sha256").hexdigest() for name, file in self.files.items()}  # type: ignore[arg-type]
        for file in self.files.values():
            file.file.seek(0)
        return hashlib.sha256(json.dumps([self.texts, files, *context], sort_keys=True).encode()).hexdigest()


class _StrictParser(MultiPartParser):
    """Starlette's parser reads bad UTF-8 as Latin-1, which would edit a picture by a garbled text, and a body that was
    cut off as if its last part had never been sent."""

    complete = False

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        if not 1 <= len(self._current_part.field_name) <= MAX_NAME_LENGTH:
            raise MultiPartException(f"The name of a part must have 1 to {MAX_NAME_LENGTH} characters.")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self._current_part
        if part.file is None and len(part.data) + end - start > MAX_FIELD_BYTES:
            detail = f"A text field may have at most {MAX_FIELD_BYTES} bytes; send files as parts with a filename."
            raise MultiPartException(detail)
        super().on_part_data(data, start, end)

    def on_end(self) -> None:
        self.complete = True
        super().on_end()

    def on_part_end(self) -> None:
        if self._current_part.file is None:
            try:
                text, _ = codecs.utf_8_decode(self._current_part.data, "strict", True)
            except UnicodeDecodeError:
                detail = "A text field is not UTF-8; send texts in UTF-8, and files as parts with a filename."
                raise MultiPartException(detail) from None
            if "\0" in text:
                raise MultiPartException("A text field holds a NUL character, which no text needs; leave it out.")
        super().on_part_end()


async def read_form(request: Request, settings: Settings) -> Form:
    """Large files go to temporary files; nothing beyond the limits is read."""
    _check_headers(request)
    try:
        async with (
            asyncio.timeout(settings.upload_timeout_s) as deadline,
            aclosing(_bounded(request, settings.max_body_bytes, deadline)) as stream,
        ):
            limits = {"max_files": MAX_FILES, "max_fields": MAX_FIELDS}
            parser = _StrictParser(request.headers, stream, **limits)
            data = await parser.parse()
    except TimeoutError:
        detail = f"the body did not arrive within {settings.upload_timeout_s} s; send a smaller picture"
        raise Problem("request-timeout", detail) from None
    except MultiPartException as error:
        detail = _NOT_AS_SAID if isinstance(error.__cause__, FormParserError) else error.message
        raise Problem("malformed-body", detail) from None
    try:
        if not parser.complete:
            raise Problem("malformed-body", "the body ends before its last boundary; send it again, whole")
        return _sorted_out(data)
    except Problem:
        await data.close()
        raise


def _check_headers(request: Request) -> None:
    """What the body is said to be. Starlette would read texts in whatever `charset` names, and Python has some that
    are no charsets."""
    media_type, options = parse_options_header(request.headers.get("content-type"))
    if media_type != b"multipart/form-data":
        raise Problem("unsupported-media-type", "send the picture and the fields as multipart/form-data")
    if options.get(b"charset", b"utf-8").lower() not in (b"utf-8", b"utf8"):
        raise Problem("unsupported-media-type", "send texts in UTF-8; the Content-Type names another charset")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem("unsupported-media-type", "send the body as it is, without a Content-Encoding")
    if not options.get(b"boundary"):
        raise Problem("malformed-body", "the Content-Type names no boundary; let the HTTP client write that header")


async def close(form: Form) -> None:
    """Removes the temporary files."""
    for file in form.files.values():
        await file.close()


async def _bounded(request: Request, limit: int, deadline: asyncio.Timeout) -> AsyncGenerator[bytes, None]:
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
            deadline.reschedule(None)  # the answer is clear
            if "expect" not in request.headers:  # else the caller waits to be told before it sends
                await _linger(stream)
            raise Problem("payload-too-large", f"the body may have at most {limit} bytes; send a smaller picture")


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
            raise invalid([InvalidParameter(name, "a second file", "one file under each name")])
        else:
            form.files[name] = value
    return form
