"""What the load benchmark computes; its runs are not tests."""

from __future__ import annotations

import pytest

from benchmarks.load import Answer, Load, Sample, arrivals, figures, quantiles


def sample(begun: float, ended: float, run_ms: float | None = None, *, done: bool = True) -> Sample:
    return Sample(ended, 1000 * (ended - begun), Answer(accepted=True, done=done, queue_ms=5.0, run_ms=run_ms))


def test_arrivals_come_at_their_rate_within_the_time_and_the_same_for_every_server() -> None:
    times = arrivals(10, 100, seed=1)
    assert times == sorted(times) == arrivals(10, 100, seed=1) != arrivals(10, 100, seed=2)
    assert 0 < times[0] < times[-1] < 100
    assert len(times) == pytest.approx(1000, rel=0.15)


def test_quantiles_of_nothing_are_nothing() -> None:
    assert quantiles([]) is None
    assert quantiles(range(101)) == {"p50": 50, "p95": 95, "p99": 99}  # type: ignore[arg-type]


def test_overhead_is_what_the_engine_did_not_run() -> None:
    found = figures([[sample(0, 2, run_ms=1500), sample(2, 4, run_ms=1500)]], Load("idle", clients=1), seconds=4)
    assert found["overhead_ms"]["p50"] == 500
    assert (found["edits"], found["edits_per_s"], found["queue_ms"]["p50"]) == (2, 0.5, 5)


def test_an_edit_that_was_not_done_is_counted_as_such() -> None:
    found = figures([[sample(0, 1), sample(0, 2, done=False)]], Load("2 clients", clients=2), seconds=2)
    assert (found["edits"], found["not_done"], found["accepted_per_s"], found["edits_per_s"]) == (1, 1, 1.0, 0.5)
