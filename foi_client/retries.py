"""What may be tried again: a pure look at how a request was answered, or was not."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from foi_client.errors import ApiError, UnreachableError
from foi_client.steps import Request

_REFUSED = frozenset({429})
"""Nothing was done: may be sent again whatever it was."""
_PASSING = frozenset({429, 502, 503, 504})
_IN_FLIGHT = "idempotency-in-flight"
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_OUR_FAULT = (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.TooManyRedirects)


def refusal(request: Request, outcome: httpx.Response | httpx.RequestError) -> ApiError | UnreachableError:
    """The failure after which the same request may be sent again, and may then go well. Raises any other."""
    if isinstance(outcome, httpx.Response):
        failure = _problem(outcome)
        statuses = _PASSING if request.repeatable else _REFUSED
        if failure.status in statuses or failure.kind == _IN_FLIGHT:
            return failure
        raise failure
    reason = str(outcome) or type(outcome).__name__
    unreachable = UnreachableError(f"{request.method} {outcome.request.url}: no answer of the service ({reason})")
    unreachable.__cause__ = outcome
    if isinstance(outcome, _OUR_FAULT) or _untrusted(outcome):
        raise unreachable
    if request.repeatable or isinstance(outcome, _NEVER_SENT):
        return unreachable
    raise unreachable


def retry_after(response: httpx.Response) -> float | None:
    """Seconds, from either form of the header (RFC 9110, section 10.2.3)."""
    given = response.headers.get("retry-after", "")
    if given.isdecimal():
        return float(given[:9])
    try:
        return max(0.0, (parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):  # no date, or one without its zone
        return None


def _problem(response: httpx.Response) -> ApiError:
    """What stands between us and the service answers without a problem document."""
    try:
        raw = response.json()
    except ValueError:
        raw = None
    if not isinstance(raw, dict) or "type" not in raw:
        where = response.headers.get("location")
        detail = f"redirected to {where}; is base_url right?" if where else response.text[:200].strip()
        raw = {"title": response.reason_phrase, "detail": detail}
    return ApiError(response.status_code, raw, retry_after(response), response.headers.get("x-request-id"))


def _untrusted(error: BaseException | None) -> bool:
    """A certificate gets no better by asking again."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False
