"""What is told of a warm-up."""

from __future__ import annotations

from typing import cast

import pytest
from structlog.testing import capture_logs

from foi_core.engine import Engine, OnProgress
from foi_core.result import Progress
from jobs.settings import Settings
from tests.support import wait_until
from worker import loading


def test_a_long_warm_up_tells_what_it_does_and_for_how_long(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        native_cells = 64

        def warm_up(self, on_progress: OnProgress) -> None:
            on_progress(Progress(1, 4, "denoise"))
            wait_until(lambda: sum(line["event"] == "warm-up goes on" for line in lines) >= 2)

    monkeypatch.setattr(loading, "EVERY_S", 0.01)
    with capture_logs() as lines:
        loading.warm_up(settings, cast(Engine, Slow()))
    assert lines[0]["event"] == "warm-up begins"
    goes_on = [line for line in lines if line["event"] == "warm-up goes on"]
    assert goes_on[-1]["work"] == "denoise step 2 of 4"
    assert goes_on[-1]["seconds"] >= goes_on[0]["seconds"]
    assert any(line["event"] == "warm-up ended" for line in lines)
