"""What every route of an edit begins with: the record, if there is one and the caller may see it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from anyio import to_thread
from fastapi import Request

from jobs.records import EditRecord
from service.auth import Caller
from service.problems import Problem
from service.submit import Intake

_EDIT_ID = re.compile(r"edit_[0-9a-f]{32}")
T = TypeVar("T")


def intake(request: Request) -> Intake:
    found: Intake = request.app.state.intake
    return found


async def in_thread(call: Callable[[], T]) -> T:
    return await to_thread.run_sync(call)


async def find(request: Request, edit_id: str, caller: Caller) -> EditRecord:
    """Raises the Problem where there is none. An edit of someone else answers as one that never was."""
    repository = intake(request).repository
    if _EDIT_ID.fullmatch(edit_id):
        record = await in_thread(partial(repository.get, edit_id))
        if record is not None and caller.may_see(record.submission.owner):
            return record
        if record is None:
            owner = await in_thread(partial(repository.past_owner, edit_id))
            if owner is not None and caller.may_see(owner):
                raise Problem("expired", "the edit and its files are gone: deleted, or past their retention time")
    raise Problem("not-found", "there is no edit of this id")
