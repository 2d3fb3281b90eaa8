"""What is counted. Processes come and go: each adds up on its own, and writes it to one hash in Redis that all share.

A field of the hash is a metric's name and its labels, with spaces between: `edits failed out-of-memory`. A histogram
has a field for each bucket, which counts that bucket alone, and one for the sum: `run_seconds 2.5`, `run_seconds sum`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from threading import Lock

from redis import Redis

from jobs.connection import RedisError
from jobs.records import Outcome

COUNTS = "foi:metrics"
WEBHOOK_OUTCOMES = "foi:webhooks:outcomes"
"""A hash of its own, kept by those who deliver: attempts by how they ended: succeeded, failed, stopped."""

EDITS = "edits"
QUEUE_SECONDS = "queue_seconds"
RUN_SECONDS = "run_seconds"
STEPS = "steps"
STEP_SECONDS = "step_seconds"
BATCH_EDITS = "batch_edits"
STORE_ERRORS = "store_errors"

EDIT_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
SUM = "sum"


def field(name: str, *labels: str) -> str:
    """No label may contain a space."""
    return " ".join((name, *labels))


def bucket(edge: float) -> str:
    return f"{edge:g}"


def observed(name: str, seconds: float, buckets: Sequence[float], *labels: str) -> dict[str, float]:
    """One observation of a histogram, as amounts to add to fields."""
    edge = next((edge for edge in buckets if seconds <= edge), math.inf)
    return {field(name, *labels, bucket(edge)): 1, field(name, *labels, SUM): seconds}


def ended(outcome: Outcome) -> dict[str, float]:
    """The end of an edit, as amounts to add to fields: by whoever writes the outcome, in the same script."""
    slug = outcome.error.type.rpartition("/")[2] if outcome.error else ""
    amounts: dict[str, float] = {field(EDITS, outcome.status, slug): 1}
    if outcome.metrics is not None:
        amounts |= observed(QUEUE_SECONDS, outcome.metrics.queue_ms / 1000, EDIT_BUCKETS_S)
        if outcome.input is None or outcome.input.method != "masks":  # one step would hide how long edits take
            amounts |= observed(RUN_SECONDS, outcome.metrics.run_ms / 1000, EDIT_BUCKETS_S)
    return amounts


class Tally:
    """Amounts that are not yet in Redis. Adding never waits for it; may be called from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._amounts: defaultdict[str, float] = defaultdict(float)
        self._followed: dict[str, float] = {}

    def add(self, amounts: Mapping[str, float]) -> None:
        with self._lock:
            for name, amount in amounts.items():
                self._amounts[name] += amount

    def follow(self, totals: Mapping[str, float]) -> None:
        """For what is counted elsewhere in this process: its totals as they are now. One thread at a time."""
        self.add({name: total - self._followed.get(name, 0) for name, total in totals.items()})
        self._followed |= totals

    def flush(self, redis: Redis) -> None:
        """Call about once a second. Raises RedisError; what was not written stays for the next time."""
        with self._lock:
            amounts, self._amounts = self._amounts, defaultdict(float)
        try:
            with redis.pipeline(transaction=True) as pipeline:
                for name, amount in amounts.items():
                    if amount:
                        pipeline.hincrbyfloat(COUNTS, name, amount)
                pipeline.execute()
        except RedisError:
            self.add(amounts)
            raise
