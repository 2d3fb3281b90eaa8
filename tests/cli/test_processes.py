"""The commands that are other programs."""

from __future__ import annotations

import signal
from pathlib import Path

from redis import Redis

from jobs import presence
from jobs.keys import ApiKeys
from service.openapi import as_yaml
from tests.cli.conftest import Foi, Here, Start, one_line
from tests.support import wait_until


def test_keys_are_made_and_listed_as_by_the_module(foi: Foi, redis: Redis, redis_url: str) -> None:
    token = foi("keys", "create", "my app", "--role", "read", FOI_REDIS_URL=redis_url).stdout.decode().strip()
    (key,) = ApiKeys(redis).all()
    assert (key.name, key.roles, key.last_four) == ("my app", ("read",), token[-4:])
    assert key.id in foi("keys", "list", FOI_REDIS_URL=redis_url).stdout.decode()


def test_wrong_commands_of_keys_have_the_documented_statuses(foi: Foi, redis_url: str) -> None:
    unknown = foi("keys", "revoke", "key_1", FOI_REDIS_URL=redis_url)
    assert unknown.returncode == 1
    assert "there is no API key" in one_line(unknown.stderr)
    away = foi("keys", "list", FOI_REDIS_URL="redis://127.0.0.1:1")
    assert away.returncode == 3
    assert "Redis does not answer" in one_line(away.stderr)
    usage = foi("keys")
    assert usage.returncode == 2
    assert b"foi keys" in usage.stderr


def test_the_description_of_the_api_is_that_of_the_service(here: Here) -> None:
    assert here("openapi").stdout == as_yaml()


def test_arguments_of_an_evaluation_are_its_own(foi: Foi) -> None:
    assert b"--quick" in foi("eval", "scenes", "--help").stdout
    assert b"--diffedit-model" in foi("eval", "pictures", "--help").stdout
    assert foi("eval", "pictures", "--nope").returncode == 2
    assert b"usage: foi calibrate" in foi("calibrate", "--help").stdout


def test_a_worker_takes_edits_until_sigterm(start: Start, redis: Redis, redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text("raise SystemExit('not this one')")
    process = start("worker", "--name", "mine", FOI_REDIS_URL=redis_url, FOI_DEVICE="cpu")
    try:
        wait_until(lambda: [one for one in presence.present(redis) if (one.name, one.state) == ("mine", "ready")], 90)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, log.decode()
