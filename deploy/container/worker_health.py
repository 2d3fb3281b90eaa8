"""Healthy while the worker of this container says that it is there; with --ready, while it takes edits.

A worker that hangs ends itself; one that is frozen as a whole cannot, and is found here. While Redis is away nobody can
be heard: then a worker counts as healthy, and as not ready.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from jobs import presence
from jobs.connection import RedisError, connect
from jobs.settings import Settings

NAME_FILE = "foi-worker-name"  # worker.sh writes it


def main() -> int:
    wants_ready = sys.argv[1:] == ["--ready"]
    url, name_file = Settings().redis_url, Path(tempfile.gettempdir()) / NAME_FILE
    if url is None or not name_file.exists():
        print("this container has no worker, or no REDIS_URL", file=sys.stderr)
        return 1
    name = name_file.read_text().strip()
    try:
        states = [worker.state for worker in presence.present(connect(url, decode=True)) if worker.name == name]
    except RedisError as error:
        print(f"Redis does not answer: {error}", file=sys.stderr)
        return 1 if wants_ready else 0
    print(f"{name}: {', '.join(states) or 'not heard of'}")
    return 0 if ("ready" in states if wants_ready else states) else 1


if __name__ == "__main__":
    sys.exit(main())
