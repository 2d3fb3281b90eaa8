"""`python -m service`: the HTTP service alone. `python -m worker` is a worker, `python -m worker.supervisor` both."""

from __future__ import annotations

import logging
import re
import signal
import sys

import uvicorn

from jobs import logs, processes
from jobs.keys import AuthUndecidedError, keys_on
from jobs.object_store import StoreSettingError
from jobs.redis_server import RedisUnavailableError, running_redis
from jobs.settings import Settings
from service.app import create_app
from service.telemetry import TelemetryUnavailableError

GRACE_S = 5


def main() -> int:
    processes.map_large_blocks()
    settings = Settings()
    logs.configure(settings)
    logging.getLogger("uvicorn.access").addFilter(_is_no_probe)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))  # uvicorn raises the signal again after its own orderly end
    try:
        keys_on(settings)  # before anything is started
        with running_redis(settings) as redis:
            app = create_app(settings, redis.url)
            uvicorn.run(
                app,
                host=settings.host,
                port=settings.port,
                log_config=None,
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=GRACE_S,
            )
    except (AuthUndecidedError, RedisUnavailableError, StoreSettingError, TelemetryUnavailableError) as error:
        print(f"foi: {error}", file=sys.stderr)
        return 1
    return 0


def _is_no_probe(line: logging.LogRecord) -> bool:
    """Load balancers and the supervisor ask several times a second; nobody reads that."""
    return not re.search(r"(GET|HEAD) /(livez|readyz|metrics)\b", line.getMessage())


if __name__ == "__main__":
    sys.exit(main())
