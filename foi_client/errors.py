"""Everything that the client raises on purpose.

FoiError
├── ApiError             the service answered with a problem (RFC 9457)
├── UnreachableError     no answer came, however often it was asked for
├── AnswerError          an answer came that is none of this service
├── EditEndedError       the edit ended without a result
│   ├── EditFailed
│   └── EditCanceled
├── NotEndedError        what was asked for needs an edit that has ended
├── WaitTimeout          the edit had not ended in time; it goes on
├── DownloadError        a file is not the one that the service has
└── WebhookError         a message is not from the service, or too old
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from foi_client.models import Edit


class FoiError(Exception):
    """Base of all."""


class FieldError(NamedTuple):
    """One wrong field: a JSON pointer into the form, and what is wrong with it."""

    pointer: str
    detail: str


class ApiError(FoiError):
    """`status` is HTTP's; `retry_after`: seconds after which the service wants to be asked again, if it said so;
    `request_id`: what the service's log has too; `raw`: the whole problem document."""

    def __init__(
        self, status: int, raw: Mapping[str, Any], retry_after: float | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(status, raw, retry_after, request_id)
        self.status, self.raw, self.retry_after, self.request_id = status, raw, retry_after, request_id
        self.type = str(raw.get("type", "about:blank"))
        self.title = str(raw.get("title", ""))
        self.detail = str(raw.get("detail", ""))
        self.errors = tuple(FieldError(entry["pointer"], entry["detail"]) for entry in raw.get("errors") or ())

    @property
    def kind(self) -> str:
        """`quota-exceeded` of `/problems/quota-exceeded`."""
        return self.type.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.status} {self.title}: {self.detail}"


class UnreachableError(FoiError):
    """The message says what was tried; the cause is httpx's error."""


class AnswerError(FoiError):
    """The message says which answer; most often the address is not that of the service."""


class EditEndedError(FoiError):
    """`edit` as it ended."""

    def __init__(self, edit: Edit) -> None:
        super().__init__(edit)
        self.edit = edit


class EditFailed(EditEndedError):
    """`edit.error` says why."""

    def __str__(self) -> str:
        reason = self.edit.error
        return f"{self.edit.id}: {reason.title}: {reason.detail}" if reason else f"{self.edit.id} {self.edit.status}"


class EditCanceled(EditEndedError):
    """Somebody did not want it any more."""

    def __str__(self) -> str:
        return f"{self.edit.id} was canceled"


class NotEndedError(FoiError):
    """The message names the edit and its status."""


class WaitTimeout(FoiError):
    """`edit_id` is None where the service had not even taken the edit in."""

    def __init__(self, edit_id: str | None, timeout_s: float) -> None:
        super().__init__(edit_id, timeout_s)
        self.edit_id, self.timeout_s = edit_id, timeout_s

    def __str__(self) -> str:
        if self.edit_id is None:
            return f"the service had not taken the edit in after {self.timeout_s:g} s"
        return f"{self.edit_id} had not ended after {self.timeout_s:g} s; it goes on: wait again, or cancel it"


class DownloadError(FoiError):
    """The message names the file; nothing was written."""


class WebhookError(FoiError):
    """Answer it with 401 and do nothing else."""
