"""How long one call goes on trying."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from math import inf

import httpx

from foi_client.errors import ApiError, FoiError, WaitTimeout
from foi_client.steps import Flow, Sleep

FIRST_DELAY_S = 0.5
MAX_DELAY_S = 8.0
CONNECT_S = 10.0

log = logging.getLogger("foi_client")


class Patience:
    """Of one call of the caller's, which may be many requests. `timeout_s`: for one answer. `retry_for_s`: how long the
    service may give none, or only such that pass. `limit_s`: for the whole call, which then raises WaitTimeout; about
    `edit_id`, once there is one."""

    def __init__(
        self,
        timeout_s: float,
        retry_for_s: float,
        limit_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.edit_id: str | None = None
        self.failures = 0
        self._timeout_s, self._retry_for_s, self._limit_s, self._clock = timeout_s, retry_for_s, limit_s, clock
        self._ends_at = inf if limit_s is None else clock() + limit_s
        self._failing_since = 0.0

    def left(self) -> float:
        """Seconds until the limit. Raises WaitTimeout."""
        left = self._ends_at - self._clock()
        if left <= 0:
            raise self._timeout()
        return left

    def timeout(self, read_s: float | None = None) -> httpx.Timeout:
        """Of one request, which may not pass the limit."""
        left = self.left()
        whole, connect = min(self._timeout_s, left), min(self._timeout_s, CONNECT_S, left)
        return httpx.Timeout(whole, connect=connect, read=min(read_s or self._timeout_s, left))

    def heard(self) -> None:
        """The service is there."""
        self.failures = 0

    def again(self, failure: FoiError) -> Flow[None]:
        """Waits for as long as it takes, and as the service asked for, before the next try. Raises the failure where
        that would be too long, and WaitTimeout at the limit."""
        now, left = self._clock(), self.left()
        if self.failures == 0:
            self._failing_since = now
        asked_s = failure.retry_after if isinstance(failure, ApiError) else None
        delay = max(backoff(self.failures), asked_s or 0)
        self.failures += 1
        if delay < left and now - self._failing_since + delay > self._retry_for_s:
            raise failure
        log.warning("%s; trying again in %.1f s", failure, delay)
        yield from self.pause(delay)

    def pause(self, seconds: float) -> Flow[None]:
        """Raises WaitTimeout at the limit."""
        left = self.left()
        yield Sleep(min(seconds, left))
        if seconds >= left:
            raise self._timeout()

    def _timeout(self) -> WaitTimeout:
        return WaitTimeout(self.edit_id, self._limit_s or 0)


def backoff(failures: int) -> float:
    """Seconds: doubling, and up to a half less by chance: those who failed together do not come back together."""
    return float(min(FIRST_DELAY_S * 2 ** min(failures, 30), MAX_DELAY_S) * random.uniform(0.5, 1))
