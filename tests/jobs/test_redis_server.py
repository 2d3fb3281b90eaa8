"""The embedded Redis: one server however many start it, and nothing lost when it is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from jobs import redis_server
from jobs.connection import connect
from jobs.redis_server import MAX_SOCKET_PATH, EmbeddedRedis, RedisUnavailableError, find_binary, running_redis
from jobs.settings import Settings
from tests.support import python, wait_until


def test_simultaneous_starts_make_one_server_and_only_its_owner_stops_it(tmp_path: Path) -> None:
    servers = [EmbeddedRedis(tmp_path) for _ in range(4)]
    line = Barrier(len(servers))

    def start(server: EmbeddedRedis) -> None:
        line.wait()
        server.start()

    with ThreadPoolExecutor(
        len(servers)
    ) as pool:  # whose threads live on: a server ends with the thread that started it
        list(pool.map(start, servers))
        owners = [server for server in servers if server._process is not None]
        assert len(owners) == 1
        for server in servers:
            if server not in owners:
                server.stop()
        client = connect(servers[0].url)
        assert client.ping()
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        client.close()
        owners[0].stop()
    assert not servers[0].socket.exists()


def test_a_killed_server_is_revived_with_its_data(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    server.start()
    client = connect(server.url)
    client.config_set("appendfsync", "always")
    client.set("key", "value")
    assert server._process is not None
    os.kill(server._process.pid, signal.SIGKILL)
    server._process.wait()
    server.revive()
    assert client.get("key") == b"value"
    client.close()
    server.stop()


def test_a_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    start = "from jobs.redis_server import EmbeddedRedis; EmbeddedRedis(pathlib.Path(sys.argv[1])).start()"
    code = f"import os, sys, pathlib; {start}; os.kill(os.getpid(), 9)"
    assert python("-c", code, str(tmp_path)).wait(20) == -9
    wait_until(lambda: not EmbeddedRedis(tmp_path).socket.exists())


def test_a_server_that_another_process_had_started_lives_on_when_that_process_ends(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, redis_url="")
    code = "import sys; from jobs.redis_server import running_redis; from jobs.settings import Settings\n"
    code += "with running_redis(Settings()) as redis: print(redis.url, flush=True); sys.stdin.read()"
    environment = {"FOI_DATA_DIR": str(tmp_path), "FOI_REDIS_URL": "", "REDIS_URL": ""}
    first = python("-c", code, environment=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout is not None
    assert first.stdout.readline()
    with running_redis(settings) as redis:
        client = connect(redis.url, patient=True)
        client.set("key", "value")
        first.communicate("")
        assert first.returncode == 0
        assert client.get("key") == b"value"
        client.close()
    assert not EmbeddedRedis(tmp_path / "redis").socket.exists()


def test_a_server_that_hangs_does_not_get_a_second_one_on_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, other = EmbeddedRedis(tmp_path), EmbeddedRedis(tmp_path)
    server.start()
    assert server._process is not None
    server._process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(redis_server, "START_TIMEOUT_S", 0.1)
    with pytest.raises(RedisUnavailableError, match="does not answer"):
        other.start()
    other.revive()
    assert other._process is None
    server._process.send_signal(signal.SIGCONT)
    server.stop()


def test_a_server_whose_folder_is_gone_can_be_stopped(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis")
    server.start()
    process = server._process
    assert process is not None
    shutil.rmtree(tmp_path / "redis")
    server.stop()
    assert process.returncode == 0


def test_a_long_folder_gets_a_short_private_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    server = EmbeddedRedis(folder)
    assert len(str(server.socket)) <= MAX_SOCKET_PATH
    assert server.socket == EmbeddedRedis(folder).socket
    assert server.socket.parent.stat().st_mode & 0o077 == 0
    server.start()
    server.stop()
    server.socket.parent.rmdir()


def test_a_short_socket_folder_of_someone_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = tmp_path / ("long" * 30)
    EmbeddedRedis(folder).socket.parent.chmod(0o777)
    with pytest.raises(RedisUnavailableError, match="private"):
        EmbeddedRedis(folder)


def test_without_any_server_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server.shutil, "which", lambda _: None)
    monkeypatch.setattr(redis_server.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RedisUnavailableError, match="REDIS_URL"):
        find_binary()


def test_a_server_that_is_too_old_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=5.0.7 sha=0'\n")
    old.chmod(0o755)
    monkeypatch.setattr(redis_server.shutil, "which", lambda _: str(old))
    monkeypatch.setattr(redis_server.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RedisUnavailableError):
        find_binary()


def test_a_server_that_cannot_start_says_where_its_log_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(redis_server, "find_binary", lambda: broken)
    with pytest.raises(RedisUnavailableError, match=r"redis\.log"):
        EmbeddedRedis(tmp_path).start()


def test_a_given_url_is_used_as_it_is(tmp_path: Path) -> None:
    with running_redis(Settings(redis_url="redis://given", data_dir=tmp_path)) as redis:
        assert redis.url == "redis://given"
    assert list(tmp_path.iterdir()) == []
