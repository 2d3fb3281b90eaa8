"""`python -m worker.supervisor`: Redis if needed, the HTTP service, the workers, the webhooks; kept alive and stopped
together."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from functools import partial
from http.client import HTTPException
from pathlib import Path

from jobs import logs, presence
from jobs.blobs import BlobStore
from jobs.connection import RedisError, connect
from jobs.keys import AuthUndecidedError, keys_on
from jobs.object_store import StoreSettingError
from jobs.processes import end_with_parent
from jobs.redis_server import EmbeddedRedis, GivenRedis, RedisUnavailableError, running_redis
from jobs.repository import EditRepository
from jobs.settings import Settings
from worker.main import EXIT_MODEL
from worker.reaper import Reaper

SAMPLE = Path("demo/samples/scene.png")
SAMPLE_INSTRUCTION = "make the sky orange"
POLL_S = 0.2
GRACE_S = 15
"""Beyond the time in which workers finish or hand back their edits."""
MAX_BACKOFF_S = 10.0
STABLE_S = 30
"""A child that lived so long starts again at once; one that keeps dying waits longer each time."""

log = logs.get_logger(__name__)


class FatalError(Exception):
    """Nothing can be served; the message is for the operator."""


class Child:
    """One process that should always run. Each life has its own name."""

    def __init__(self, kind: str, command: Callable[[str], list[str]], environment: dict[str, str]) -> None:
        self.kind = kind
        self._command, self._environment = command, environment
        self._deaths, self._start_at, self._started = 0, 0.0, 0.0
        self.process: subprocess.Popen[bytes] | None = None
        self.name = ""
        self.heard_at: float | None = None

    def start_when_due(self) -> None:
        if self.process is not None or time.monotonic() < self._start_at:
            return
        self.name = f"{self.kind}-{uuid.uuid4().hex[:12]}"
        self._started, self.heard_at = time.monotonic(), None
        # A session of its own: Ctrl-C reaches the supervisor alone, which then stops its children in order.
        self.process = subprocess.Popen(
            self._command(self.name), env=self._environment, start_new_session=True, preexec_fn=end_with_parent()
        )

    def death(self) -> int | None:
        """The exit status, once, when the process has ended; it is due again after a while."""
        status = self.process.poll() if self.process is not None else None
        if status is not None:
            self.process = None
            self._deaths = 0 if time.monotonic() - self._started > STABLE_S else self._deaths + 1
            self._start_at = time.monotonic() + min(MAX_BACKOFF_S, 0.25 * 2**self._deaths)
        return status

    def end(self, deadline: float) -> None:
        """Waits for the end that SIGTERM asked for, and forces it at the deadline."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Supervisor:
    def __init__(self, settings: Settings, redis: GivenRedis | EmbeddedRedis) -> None:
        self._settings = settings
        environment = {**os.environ, "FOI_REDIS_URL": redis.url}
        self._service = Child("service", lambda _: [sys.executable, "-m", "service"], environment)
        self._webhooks = Child("webhooks", lambda _: [sys.executable, "-m", "worker.webhooks"], environment)
        self._workers = [Child("worker", partial(_worker_command, i), environment) for i in range(settings.workers)]
        self._presence = connect(redis.url, decode=True)
        self._reaper = Reaper(
            connect(redis.url), EditRepository(self._presence, settings.retention_s), settings.max_deaths
        )
        self._signals = 0
        self._announced = False

    def run(self) -> None:
        """Returns after SIGTERM or Ctrl-C, when every child has ended. Raises FatalError."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        try:
            while not self._signals:
                self._look_after_children()
                self._announce_when_ready()
                time.sleep(POLL_S)
        finally:
            self._stop()

    @property
    def _children(self) -> list[Child]:
        return [self._service, self._webhooks, *self._workers]

    def _on_signal(self, *_: object) -> None:
        self._signals += 1

    def _look_after_children(self) -> None:
        for child in self._children:
            status = child.death()
            if status == EXIT_MODEL and child in self._workers:
                raise FatalError("the model cannot be used; its reason is above")
            if status is not None:
                log.warning("process ended, starting it again", kind=child.kind, name=child.name, status=status)
                self._reap(child.name)
            try:
                child.start_when_due()
            except OSError as error:  # no memory, no process: perhaps a moment later
                log.error("process not started", kind=child.kind, reason=str(error))
        self._reap()

    def _reap(self, dead: str | None = None) -> None:
        try:
            if dead is not None:
                presence.withdraw(self._presence, dead)
                self._reaper.reclaim(dead)
            self._reaper.tick()
            self._kill_the_silent({worker.name for worker in presence.present(self._presence)})
        except RedisError as error:
            log.warning("reaper skipped", reason=str(error))
            self._kill_the_silent({worker.name for worker in self._workers if worker.heard_at is not None})
        except Exception:
            log.exception("reaper skipped: an unexpected error")

    def _kill_the_silent(self, heard: set[str]) -> None:
        """A worker that was heard of and is not any more is frozen as a whole: its own watch cannot see it. While Redis
        is away nobody can be heard, and nobody is to blame."""
        now = time.monotonic()
        for child in self._workers:
            if child.name in heard:
                child.heard_at = now
                continue
            silent_s = 0 if child.heard_at is None else now - child.heard_at
            if child.process is not None and silent_s > self._settings.hang_s:
                log.error("worker is silent: killing it", name=child.name)
                child.process.kill()

    def _announce_when_ready(self) -> None:
        if self._announced or not _is_ready(self._address):
            return
        self._announced = True
        key = '-H "Authorization: Bearer $FOI_KEY" ' if keys_on(self._settings) else ""
        picture = SAMPLE if SAMPLE.exists() else "your-picture.png"
        print(
            f"\nReady. Edit a picture at {self._address}/ or by\n"
            f"  curl -sS {key}-H 'Prefer: wait=60' -F image=@{picture} -F 'instruction={SAMPLE_INSTRUCTION}' "
            f"{self._address}/v1/edits\n"
            f"Documentation: {self._address}/docs\n",
            flush=True,
        )

    @property
    def _address(self) -> str:
        host = "127.0.0.1" if self._settings.host in ("0.0.0.0", "::") else self._settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self._settings.port}"

    def _stop(self) -> None:
        """The service first, so that nothing new comes in; a second signal does not wait for running edits."""
        children = [child for child in self._children if child.process is not None]
        seen = self._signals
        for child in children:
            assert child.process is not None
            child.process.terminate()
        deadline = time.monotonic() + self._settings.drain_s + GRACE_S
        while time.monotonic() < deadline and self._signals == seen:
            if all(child.process is None or child.process.poll() is not None for child in children):
                break
            time.sleep(POLL_S / 4)
        for child in children:
            child.end(time.monotonic())


def _worker_command(index: int, name: str) -> list[str]:
    return [sys.executable, "-m", "worker", "--name", name, "--index", str(index)]


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, HTTPException, OSError):
        return False


def try_port(host: str, port: int) -> None:
    """Listens there for a moment. Raises OSError where it cannot."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def _check_port(host: str, port: int) -> None:
    try:
        try_port(host, port)
    except OSError as error:
        raise FatalError(f"cannot listen on {host}:{port} ({error.strerror}); set FOI_PORT or FOI_HOST") from None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m worker.supervisor", description=__doc__)
    parser.add_argument("--workers", type=int, help="worker processes (default: FOI_WORKERS); one per GPU")
    if (workers := parser.parse_args().workers) is not None:
        os.environ["FOI_WORKERS"] = str(workers)  # for the children too: they share the cores
    settings = Settings()
    logs.configure(settings)
    try:
        keys_on(settings)
        _check_port(settings.host, settings.port)
        BlobStore.of(settings)  # children that start again and again would hide what is wrong
        with running_redis(settings) as redis:
            Supervisor(settings, redis).run()
    except (FatalError, AuthUndecidedError, RedisUnavailableError, StoreSettingError) as error:
        print(f"foi: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
