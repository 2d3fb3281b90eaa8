"""`python -m tests.worker.fake_worker NAME SECONDS`: a real worker process, an engine whose steps just take time."""

from __future__ import annotations

import os
import signal
import sys
import time

from jobs.settings import Settings
from tests.support import FakeEngine, FakeState
from worker.main import work

POISON = "kill the worker"


class Mortal(FakeEngine):
    """An instruction that asks for it kills the process."""

    def step(self, states: list[FakeState]) -> None:
        if any(state.spec.instructions[0].text == POISON for state in states):
            os.kill(os.getpid(), signal.SIGKILL)
        super().step(states)


if __name__ == "__main__":
    settings = Settings()
    assert settings.redis_url is not None
    name, seconds = sys.argv[1], float(sys.argv[2])
    engine = Mortal(lambda: time.sleep(seconds))
    sys.exit(work(settings, settings.redis_url, name, lambda changed: engine.batching(on_change=changed)))
