"""Who calls, and what the caller may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Request

from jobs.repository import ALL_OWNERS

Role = Literal["submit", "read", "admin"]
PROBLEMS = ("unauthorized", "forbidden")
"""What every route with a caller may answer."""


@dataclass(frozen=True)
class Caller:
    """`owner` is the API key's id; empty where keys are off."""

    owner: str = ""
    admin: bool = False

    @property
    def lists(self) -> str:
        """Whose edits a list shows."""
        return ALL_OWNERS if self.admin else self.owner

    def may_see(self, owner: str) -> bool:
        return self.admin or owner == self.owner


async def submitter(_: Request) -> Caller:
    """Raises the Problem where the key is missing or may not submit."""
    return Caller()


async def reader(_: Request) -> Caller:
    """Raises the Problem where the key is missing or may not read."""
    return Caller()


Reader = Annotated[Caller, Depends(reader)]


async def stream_slot(_: Reader) -> None:
    """One of the event streams that a key may have open."""


async def still_valid(_: Request, __: Caller) -> bool:
    """Whether the caller's key has not been revoked since."""
    return True


Submitter = Annotated[Caller, Depends(submitter)]
StreamSlot = Annotated[None, Depends(stream_slot)]
