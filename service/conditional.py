"""Conditional requests (RFC 9110, section 13)."""

from __future__ import annotations

from fastapi import Request


def unchanged(request: Request, etag: str) -> bool:
    """Whether the caller has this very version already (`If-None-Match`)."""
    given = ",".join(request.headers.getlist("if-none-match"))
    return given.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in given.split(",")]
