"""`python -m worker.webhooks`: tells receivers of the ends of edits, as Standard Webhooks 1.0 has it."""

from __future__ import annotations

import asyncio
import math
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus

import httpx
from standardwebhooks import Webhook

from jobs import logs
from jobs.connection import RedisError, connect
from jobs.outgoing import ForbiddenAddress, check_url, explain_in_full, open_client
from jobs.records import now
from jobs.redis_server import RedisUnavailableError, running_redis
from jobs.repository import EditRepository
from jobs.settings import Settings
from jobs.webhooks import MAX_RETRY_AFTER_S, Attempt, Claim, Delivery, DeliveryStore, WebhookSecrets

TIMEOUT_S = 15
MAX_ANSWER_BYTES = 64 * 1024
MAX_RUNNING = 64
MAX_PER_HOST = 4
MAX_PER_OWNER = 16
PACE_S = 0.02
"""Messages for a host that is busy come back one by one, so far apart: a long line of them costs nobody else time."""
POLL_S = 0.1
FINISH_S = 10
"""After SIGTERM; what is not done by then is given back."""

log = logs.get_logger(__name__)


@dataclass(frozen=True)
class Answer:
    """`status` is None where there was none. `error` says why it is no success."""

    status: int | None
    error: str | None = None
    retry_after: float | None = None


class Deliverer:
    """Sends what is due, many at once, few to one host. Any number of these may run."""

    def __init__(self, store: DeliveryStore, secrets: WebhookSecrets, *, allow_private: bool) -> None:
        self._store, self._secrets, self._allow_private = store, secrets, allow_private
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: Counter[str] = Counter()
        self._line_ends: dict[str, float] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set, and then a little longer for those that have begun."""
        while not stop.is_set():
            claims = await self._claim(MAX_RUNNING - len(self._tasks))
            for claim in claims:
                task = asyncio.create_task(self._handle(claim))
                self._tasks.add(task)
                task.add_done_callback(self._ended)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0 if claims else POLL_S)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=FINISH_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _claim(self, count: int) -> list[Claim]:
        try:
            return await asyncio.to_thread(self._store.claim, count) if count else []
        except RedisError as error:
            log.warning("no webhooks: redis does not answer", reason=str(error))
            return []

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("webhook not sent; it is tried again", exc_info=error)

    async def _handle(self, claim: Claim) -> None:
        try:
            delivery = await asyncio.to_thread(self._store.load, claim)
            if delivery is None:
                return
            limits = {f"host {httpx.URL(delivery.url).host}": MAX_PER_HOST}
            if delivery.owner:
                limits[f"owner {delivery.owner}"] = MAX_PER_OWNER
            full = [line for line, most in limits.items() if self._running[line] >= most]
            if full:
                await asyncio.to_thread(self._store.postpone, claim, self._place_in_line(full[0]))
                return
            self._running.update(limits.keys())
            try:
                await self._attempt(claim, delivery)
            finally:
                self._running.subtract(limits.keys())
                self._running += Counter()  # forgets those at zero
        except RedisError as error:
            log.warning("webhook waits for redis", edit_id=claim.edit_id, reason=str(error))
        except asyncio.CancelledError:
            with suppress(RedisError):
                await asyncio.to_thread(self._store.postpone, claim, 0)
            raise

    def _place_in_line(self, host: str) -> float:
        """Seconds until the message's turn to ask again."""
        present = time.monotonic()
        self._line_ends = {other: end for other, end in self._line_ends.items() if end > present}
        end = self._line_ends[host] = self._line_ends.get(host, present) + PACE_S
        return end - present

    async def _attempt(self, claim: Claim, delivery: Delivery) -> None:
        secrets = await asyncio.to_thread(self._secrets.current, delivery.owner)
        began, at = time.monotonic(), now()
        answer = await send(delivery, secrets, allow_private=self._allow_private)
        took = round((time.monotonic() - began) * 1000)
        attempt = Attempt(at=at, status=answer.status, error=answer.error, ms=took)
        wobble = random.uniform(-1, 1)
        record = partial(self._store.record, claim, delivery, attempt, wobble, answer.retry_after)
        while True:
            try:
                state = await asyncio.to_thread(record)
                break
            except RedisError as error:
                log.warning("webhook sent and not recorded yet", edit_id=claim.edit_id, reason=str(error))
                await asyncio.sleep(POLL_S)
        log.info("webhook tried", edit_id=claim.edit_id, status=answer.status, error=answer.error, ms=took, state=state)


async def send(delivery: Delivery, secrets: list[str], *, allow_private: bool) -> Answer:
    """One attempt. An answer is its status: of its body a little is read, and no redirect is followed."""
    content = delivery.body.encode()
    headers = {"Content-Type": "application/json", **signature(delivery, secrets, now())}
    answer: Answer | None = None
    try:
        check_url(delivery.url, allow_private=allow_private)
        async with (
            asyncio.timeout(TIMEOUT_S),
            open_client(TIMEOUT_S, allow_private=allow_private) as client,
            client.stream("POST", delivery.url, content=content, headers=headers) as response,
        ):
            answer = Answer(response.status_code, _refusal(response.status_code), _retry_after(response))
            async for _ in response.aiter_raw():
                if response.num_bytes_downloaded > MAX_ANSWER_BYTES:
                    break
    except (ForbiddenAddress, httpx.HTTPError, TimeoutError) as error:
        return answer or Answer(None, explain_in_full(error, TIMEOUT_S))
    return answer


def _refusal(status: int) -> str | None:
    """In words, with the standard's own phrase for the status. None: the message has arrived."""
    if 200 <= status < 300:
        return None
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "no status that HTTP knows"
    if 300 <= status < 400:
        return f"answered {status} ({phrase}): redirects are not followed; give the final address"
    if status == HTTPStatus.GONE:
        return f"answered {status} ({phrase}): nothing more is sent"
    return f"answered {status} ({phrase}) instead of 2xx"


def signature(delivery: Delivery, secrets: list[str], moment: datetime) -> dict[str, str]:
    """The three headers of Standard Webhooks; one signature for each secret. `moment` in UTC: the library takes the
    digits of any other zone for UTC."""
    signatures = [Webhook(secret).sign(delivery.id, moment, delivery.body) for secret in secrets]
    return {
        "webhook-id": delivery.id,
        "webhook-timestamp": str(math.floor(moment.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that a receiver which is overloaded asks for: RFC 9110, a number or a date."""
    value = response.headers.get("retry-after", "")
    if response.status_code not in (429, 503) or not value:
        return None
    if value.isascii() and value.isdecimal():
        return float(value[:12])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(0.0, (aware - now()).total_seconds()), MAX_RETRY_AFTER_S)


async def deliver(settings: Settings, url: str) -> None:
    """Until SIGTERM or Ctrl-C."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    redis = connect(url, decode=True)
    store = DeliveryStore(EditRepository(redis, settings.retention_s), settings.public_url)
    log.info("webhooks ready")
    await Deliverer(store, WebhookSecrets(redis), allow_private=settings.allow_private_urls).run(stop)


def main() -> int:
    settings = Settings()
    logs.configure(settings)
    try:
        with running_redis(settings) as redis:
            asyncio.run(deliver(settings, redis.url))
    except RedisUnavailableError as error:
        print(f"foi: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
