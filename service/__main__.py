"""`python -m service`: the HTTP service alone. `python -m worker` is a worker, `python -m worker.supervisor` both."""

from __future__ import annotations

import logging
import re
import resource
import signal
import sys

from uvicorn.config import STARTUP_FAILURE

from jobs import logs, processes
from jobs.keys import AuthUndecidedError, keys_on
from jobs.object_store import StoreSettingError
from jobs.redis_server import RedisUnavailableError, running_redis
from jobs.settings import Settings
from service.app import create_app
from service.server import Server
from service.telemetry import TelemetryUnavailableError


def main() -> int:
    processes.map_large_blocks(2**20)
    settings = Settings()
    logs.configure(settings)
    logging.getLogger("uvicorn.access").addFilter(_is_no_probe)
    logging.getLogger("uvicorn.access").addFilter(_without_query)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))  # uvicorn raises the signal again after its own orderly end
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each open stream is one; many systems begin with 1024
    try:
        keys_on(settings)  # before anything is started
        with running_redis(settings) as redis:
            server = Server(create_app(settings, redis.url), host=settings.host, port=settings.port)
            server.run()
            if not server.started:
                return STARTUP_FAILURE
    except (AuthUndecidedError, RedisUnavailableError, StoreSettingError, TelemetryUnavailableError) as error:
        print(f"foi: {error}", file=sys.stderr)
        return 1
    return 0


def _is_no_probe(line: logging.LogRecord) -> bool:
    """Load balancers and the supervisor ask several times a second; nobody reads that."""
    return not re.search(r"(GET|HEAD) /(livez|readyz|metrics)\b", line.getMessage())


def _without_query(line: logging.LogRecord) -> bool:
    """A query may hold a stream token. uvicorn's arguments are the caller, the method, the address, the version of HTTP
    and the status."""
    if isinstance(line.args, tuple):
        line.args = tuple(one.partition("?")[0] if isinstance(one, str) else one for one in line.args)
    return True


if __name__ == "__main__":
    sys.exit(main())
