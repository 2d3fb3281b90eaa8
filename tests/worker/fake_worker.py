"""`python -m tests.worker.fake_worker NAME SECONDS`: a real worker process, an engine whose steps just take time."""

from __future__ import annotations

import sys
import time

from jobs.settings import Settings
from tests.support import FakeEngine
from worker.main import work

if __name__ == "__main__":
    settings = Settings()
    assert settings.redis_url is not None
    name, seconds = sys.argv[1], float(sys.argv[2])
    engine = FakeEngine(lambda: time.sleep(seconds))
    sys.exit(work(settings, settings.redis_url, name, lambda: engine))
