"""Conditional and range requests (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import re

from fastapi import Request

_RANGE = re.compile(r"[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*")

Range = tuple[int, int]
"""First and last byte."""


def unchanged(request: Request, etag: str) -> bool:
    """Whether the caller has this very version already (`If-None-Match`)."""
    given = ",".join(request.headers.getlist("if-none-match"))
    return given.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in given.split(",")]


def ranges(request: Request, etag: str, size: int) -> list[Range] | None:
    """Which bytes of the file to send; empty: it has none of those asked for. None: all of it, because nothing else was
    asked for, or of another version, or in words that are no valid range and are to be ignored."""
    unit, _, given = request.headers.get("range", "").partition("=")
    if request.method != "GET" or unit.strip().lower() != "bytes":
        return None
    if request.headers.get("if-range", etag) != etag:
        return None
    found = [_parsed(part, size) for part in given.split(",")]
    if None in found:
        return None
    return [(first, min(last, size - 1)) for first, last in filter(None, found) if first < size]


def _parsed(text: str, size: int) -> Range | None:
    match = _RANGE.fullmatch(text)
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:  # so many from the end
        return (max(0, size - int(last)) if int(last) else size, size)
    if last and int(last) < int(first):
        return None
    return int(first), int(last) if last else size
