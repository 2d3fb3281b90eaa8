"""What Prometheus reads: the counts of all processes, which are in Redis, and how the queue and the workers are now."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, get_args

from anyio import move_on_after, to_thread
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from redis import Redis
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs import metrics, presence
from jobs.connection import RedisError
from jobs.logs import get_logger
from jobs.queue import PRIORITIES, rq_queues
from service import auth, lookup, openapi

FLUSH_S = 1.0
LAST_FLUSH_S = 2.0
HTTP_REQUESTS = "http_requests"
HTTP_SECONDS = "http_request_seconds"
HTTP_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_WEBHOOK_OUTCOMES = ("succeeded", "failed", "stopped")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
Values = Mapping[tuple[str, ...], float]

log = get_logger(__name__)

_COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    metrics.EDITS: ("Edits that have ended, each once; error is the slug of a failed one.", ("status", "error")),
    metrics.STEPS: ("Denoising steps, each of a whole batch.", ()),
    metrics.STEP_SECONDS: ("Time that steps took.", ()),
    metrics.BATCH_EDITS: ("Edits in each step, added up: by the steps, how full the batches are.", ()),
    metrics.STORE_ERRORS: ("Reads and writes of files that failed.", ()),
    HTTP_REQUESTS: ("Requests that were answered, by route.", ("method", "route", "status")),
}
_HISTOGRAMS: dict[str, tuple[str, tuple[str, ...], Sequence[float]]] = {
    metrics.QUEUE_SECONDS: ("How long edits that succeeded had waited.", (), metrics.EDIT_BUCKETS_S),
    metrics.RUN_SECONDS: (
        "How long edits that succeeded were in the engine, looks for masks left out.",
        (),
        metrics.EDIT_BUCKETS_S,
    ),
    HTTP_SECONDS: (
        "Time until the end of the answer; event streams are left out.",
        ("method", "route"),
        HTTP_BUCKETS_S,
    ),
}


class RequestCounts:
    """ASGI. Counts by the route's template: addresses have ids in them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status, streams = time.monotonic(), 500, False

        async def watched(message: Message) -> None:
            nonlocal status, streams
            if message["type"] == "http.response.start":
                status = message["status"]
                streams = any(value.startswith(b"text/event-stream") for _, value in message["headers"])
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            route = getattr(scope.get("route"), "path", "none")
            amounts: dict[str, float] = {metrics.field(HTTP_REQUESTS, method, route, str(status)): 1}
            if not streams:
                amounts |= metrics.observed(HTTP_SECONDS, time.monotonic() - begun, HTTP_BUCKETS_S, method, route)
            scope["app"].state.monitor.tally.add(amounts)


class Monitor:
    """Collects the metrics; `tally` takes what this process counts. Needs a client that decodes."""

    def __init__(self, redis: Redis, version: str, model: str) -> None:
        """`model` is the one that workers should have, where none is there to say."""
        self.tally = metrics.Tally()
        self._redis, self._version, self._model = redis, version, model
        queues = rq_queues(redis)  # for their keys alone: this client decodes
        self._waiting = [queue.key for queue in queues]
        self._started = [queue.started_job_registry.key for queue in queues]

    @asynccontextmanager
    async def flushing(self) -> AsyncIterator[None]:
        """While the block runs, writes what was counted once a second, and the rest at its end."""
        task = asyncio.create_task(self._flush_on_and_on())
        try:
            yield
        finally:
            task.cancel()
            with move_on_after(LAST_FLUSH_S):
                await self._flush()

    async def _flush_on_and_on(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                await self._flush()
            except Exception:
                log.exception("metrics not written: an unexpected error")

    async def _flush(self) -> None:
        with suppress(RedisError):  # it is written when Redis is back
            await to_thread.run_sync(self.tally.flush, self._redis, abandon_on_cancel=True)

    def text(self) -> bytes:
        """Raises RedisError."""
        with suppress(RedisError):  # a Redis that is full can still be read, and must be seen to be full
            self.tally.flush(self._redis)
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hgetall(metrics.COUNTS)
            pipeline.hgetall(metrics.WEBHOOK_OUTCOMES)
            for key in self._waiting:
                pipeline.llen(key)
            for key in self._started:
                pipeline.zcard(key)
            counts, webhooks, *depths = pipeline.execute()
        yield _depth(depths)
        yield from self._memory()
        yield from self._workers(presence.present(self._redis))
        values = _by_name(counts)
        for name, (text, labels) in _COUNTERS.items():
            yield _counter(name, text, labels, values[name])
        for name, (text, labels, edges) in _HISTOGRAMS.items():
            yield _histogram(name, text, labels, edges, values[name])
        attempts: Values = {(outcome,): float(webhooks.get(outcome, 0)) for outcome in _WEBHOOK_OUTCOMES}
        yield _counter("webhook_attempts", "Deliveries of webhooks that were tried.", ("outcome",), attempts)

    def _memory(self) -> Iterator[Metric]:
        memory: Any = self._redis.info("memory")
        yield GaugeMetricFamily("foi_redis_used_bytes", "Memory of Redis that is in use.", memory["used_memory"])
        limit = memory.get("maxmemory", 0)
        yield GaugeMetricFamily("foi_redis_limit_bytes", "At which Redis refuses writes; 0: never.", limit)

    def _workers(self, workers: Sequence[presence.WorkerPresence]) -> Iterator[Metric]:
        states = Counter(worker.state for worker in workers)
        family = GaugeMetricFamily("foi_workers", "Worker processes that are there.", labels=["state"])
        for state in get_args(presence.State):
            family.add_metric([state], states[state])
        yield family
        places = sum(worker.places for worker in workers if worker.state == "ready")
        yield GaugeMetricFamily("foi_batch_capacity", "Edits that all ready workers together step at once.", places)
        models = {(worker.model, worker.revision or "") for worker in workers} or {(self._model, "")}
        build = GaugeMetricFamily(
            "foi_build_info", "What runs here; always 1.", labels=["version", "model", "revision"]
        )
        for model, revision in sorted(models):
            build.add_metric([self._version, model, revision], 1)
        yield build


def _depth(depths: Sequence[int]) -> Metric:
    family = GaugeMetricFamily("foi_queue_depth", "Edits that wait or that workers have.", labels=["priority", "state"])
    for i, (state, priority) in enumerate((s, p) for s in ("queued", "started") for p in PRIORITIES):
        family.add_metric([priority, state], depths[i])
    return family


def _by_name(counts: Mapping[str, str]) -> defaultdict[str, dict[tuple[str, ...], float]]:
    found: defaultdict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
    for field, value in counts.items():
        name, *labels = field.split(" ")
        found[name][tuple(labels)] = float(value)
    return found


def _counter(name: str, text: str, labels: Sequence[str], values: Values) -> Metric:
    family = CounterMetricFamily(f"foi_{name}", text, labels=labels)
    for series, value in sorted(values.items() if values or labels else [((), 0.0)]):
        family.add_metric(series, value)
    return family


def _histogram(name: str, text: str, labels: Sequence[str], edges: Sequence[float], values: Values) -> Metric:
    family = HistogramMetricFamily(f"foi_{name}", text, labels=labels)
    for series in sorted({key[:-1] for key in values} if values or labels else {()}):
        total, buckets = 0.0, []
        for edge in (*edges, math.inf):
            total += values.get((*series, metrics.bucket(edge)), 0.0)
            buckets.append(("+Inf" if edge == math.inf else str(float(edge)), total))
        family.add_metric(series, buckets, values.get((*series, metrics.SUM), 0.0))
    return family


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    intake = app.state.intake
    app.state.monitor = Monitor(intake.repository.redis, app.version, intake.settings.model)
    intake.blobs.on_error = partial(app.state.monitor.tally.add, {metrics.STORE_ERRORS: 1})
    async with app.state.monitor.flushing():
        yield


router = APIRouter(tags=["operations"], lifespan=_lifespan)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=PlainTextResponse,
    responses=openapi.problem_responses(*auth.PROBLEMS, "quota-exceeded", "unavailable"),
)
async def get_metrics(request: Request, _: auth.Reader) -> Response:
    """The text format of Prometheus. Counts are of all processes together: scrape one, whichever answers."""
    monitor: Monitor = request.app.state.monitor
    return Response(await lookup.in_thread(monitor.text), media_type=CONTENT_TYPE_PLAIN_0_0_4)
