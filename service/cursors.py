"""Cursors of the list of edits as callers see them: opaque, so that they may change."""

from __future__ import annotations

import base64
import re

from jobs.repository import Cursor
from service.problems import Problem

_CURSOR = re.compile(r"([0-9]{1,16}):(edit_[0-9a-f]{32})")


def write(cursor: Cursor) -> str:
    return base64.urlsafe_b64encode(f"{cursor.moment}:{cursor.edit_id}".encode()).decode().rstrip("=")


def read(text: str) -> Cursor:
    """Raises the Problem for what `write` has not written."""
    try:
        found = _CURSOR.fullmatch(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode())
    except ValueError:
        found = None
    if found is None:
        detail = "cursor: not one of ours; take next_cursor of the page before, or leave it out"
        raise Problem("invalid-parameter", detail, [{"pointer": "/cursor", "detail": detail}])
    return Cursor(int(found[1]), found[2])
