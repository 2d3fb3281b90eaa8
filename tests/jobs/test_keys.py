"""API keys and their command line, as an operator uses them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from jobs.keys import ApiKeys, UnknownKeyError, digest_of
from jobs.redis_server import EmbeddedRedis
from tests.support import python

Run = Callable[..., tuple[int, str, str]]


def run_with(environment: dict[str, str]) -> Run:
    def run(*arguments: str) -> tuple[int, str, str]:
        process = python(
            "-m", "jobs.keys", *arguments, environment=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = process.communicate(timeout=30)
        return process.returncode, out, err

    return run


@pytest.fixture
def run(redis: Redis, redis_url: str) -> Run:
    assert redis.dbsize() == 0
    return run_with({"FOI_REDIS_URL": redis_url})


def test_a_key_is_shown_once_and_only_its_hash_is_stored(run: Run, redis: Redis) -> None:
    status, out, err = run("create", "anna's laptop")
    token = out.strip()
    assert (status, token[:4], len(token)) == (0, "foi_", 53)
    assert "not shown again" in err
    assert token not in err
    stored = str(redis.hgetall("foi:keys"))
    assert redis.keys("*") == ["foi:keys"]
    assert token[4:-6] not in stored
    assert digest_of(token) in redis.hgetall("foi:keys")


def test_keys_are_listed_and_revoked_by_their_ids(run: Run, redis: Redis) -> None:
    token = run("create", "first")[1].strip()
    run("create", "second", "--role", "admin", "--role", "read", "--role", "admin")
    first, second = ApiKeys(redis).all()
    assert [first.roles, second.roles] == [("submit", "read"), ("admin", "read")]
    assert run("revoke", first.id)[0] == run("revoke", first.id)[0] == 0
    status, out, _ = run("list")
    heading, *rows = out.splitlines()
    assert (status, heading.split()) == (0, ["ID", "OWNER", "NAME", "ROLES", "CREATED", "ENDS", "IN", "REVOKED"])
    day, clock = f"{first.created_at:%Y-%m-%d %H:%M:%SZ}".split()
    assert rows[0].split()[:7] == [first.id, first.id, "first", "submit,read", day, clock, token[-4:]]
    assert [len(row.split()) for row in rows] == [9, 7], "only the first has a time of its revocation"


def test_revoking_twice_keeps_the_first_time(redis: Redis) -> None:
    keys = ApiKeys(redis)
    _, key = keys.create("one")
    keys.revoke(key.id)
    before = keys.get(key.id)
    keys.revoke(key.id)
    assert keys.get(key.id) == before
    assert before.revoked_at is not None


@pytest.mark.parametrize("command", [["revoke", "key_000000000000"], ["webhook-secret", "--owner", "key_1"]])
def test_an_unknown_id_is_refused_in_one_line(run: Run, command: list[str]) -> None:
    status, out, err = run(*command)
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert "there is no API key" in err


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["create"],
        ["create", ""],
        ["create", " "],
        ["create", "a\nb"],
        ["create", "x" * 101],
        ["create", "x", "--role", "root"],
    ],
)
def test_a_wrong_command_makes_nothing(run: Run, redis: Redis, command: list[str]) -> None:
    status, _, err = run(*command)
    assert status == 2
    assert "error:" in err
    assert redis.dbsize() == 0


def test_without_redis_the_error_is_one_line() -> None:
    status, out, err = run_with({"FOI_REDIS_URL": "redis://127.0.0.1:1"})("list")
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert "Redis does not answer" in err


def test_it_works_with_the_embedded_redis_whether_it_runs_or_not(tmp_path: Path) -> None:
    run = run_with({"FOI_REDIS_URL": "", "REDIS_URL": "", "FOI_DATA_DIR": str(tmp_path)})
    assert run("create", "before")[0] == 0
    server = EmbeddedRedis(tmp_path / "redis")
    server.start()
    assert run("create", "while")[0] == 0
    out = run("list")[1]
    server.stop()
    assert [row.split()[2] for row in out.splitlines()] == ["NAME", "before", "while"]


def test_a_token_with_a_typing_error_is_none(redis: Redis) -> None:
    token, _ = ApiKeys(redis).create("one")
    swapped = token[:9] + token[10] + token[9] + token[11:]
    assert digest_of(token) is not None
    for i in range(4, len(token)):
        assert digest_of(token[:i] + ("x" if token[i] != "x" else "y") + token[i + 1 :]) is None
    for other in ("", "foi_", token[:-1], token + "0", token.upper(), "gho" + token[3:], token + "\n", "ü" + token[1:]):
        assert digest_of(other) is None
    assert token[9] == token[10] or digest_of(swapped) is None


def test_tokens_and_ids_differ(redis: Redis) -> None:
    made = [ApiKeys(redis).create("same") for _ in range(50)]
    assert len({token for token, _ in made}) == len({key.id for _, key in made}) == 50
    with pytest.raises(UnknownKeyError):
        ApiKeys(redis).get("key_")


def test_webhook_secrets_are_shown_and_rotated_for_each_owner(run: Run, redis: Redis) -> None:
    _, key = ApiKeys(redis).create("one")
    secret = run("webhook-secret")[1]
    assert secret.startswith("whsec_")
    assert run("webhook-secret")[1] == secret
    own = run("webhook-secret", "--owner", key.id)[1]
    assert own != secret
    rotated = run("rotate-webhook-secret", "--owner", key.id)[1]
    assert run("webhook-secret", "--owner", key.id)[1] == rotated != own
    assert run("webhook-secret")[1] == secret
