"""API keys over HTTP: who is refused, who sees what, and what a revocation ends."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from redis import Redis

from jobs.blobs import BlobStore
from jobs.connection import connect
from jobs.keys import DEFAULT_ROLES, ApiKeys, AuthUndecidedError, Role, digest_of, keys_on
from jobs.redis_server import EmbeddedRedis
from jobs.repository import EditRepository
from jobs.settings import Settings
from service.app import create_app
from tests.service.conftest import seen_a_moment_ago, serving
from tests.service.test_edits import submit
from tests.support import FakeEngine, later, python, run_edit

Caller = Callable[..., httpx.Client]
NOWHERE = "edit_" + "0" * 32


@pytest.fixture(scope="module")
def keyed_settings(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Settings:
    return Settings(auth="keys", data_dir=tmp_path_factory.mktemp("keyed"), redis_url=redis_url)


@pytest.fixture(scope="module")
def keyed_address(keyed_settings: Settings, redis_url: str) -> Iterator[str]:
    with serving(keyed_settings, redis_url) as url:
        yield url


@pytest.fixture
def keys(redis: Redis) -> ApiKeys:
    seen_a_moment_ago(redis)
    return ApiKeys(redis)


@pytest.fixture
def caller(keyed_address: str, keys: ApiKeys) -> Iterator[Caller]:
    """A client with a new key of these roles; `name` is the key's id."""
    clients = []

    def make(*roles: Role) -> httpx.Client:
        token, key = keys.create("test", roles or DEFAULT_ROLES)
        headers = {"Authorization": f"Bearer {token}", "X-Key": key.id}
        clients.append(httpx.Client(base_url=keyed_address, timeout=20, headers=headers))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def key_id(client: httpx.Client) -> str:
    return client.headers["X-Key"]


def token_of(client: httpx.Client) -> str:
    return client.headers["Authorization"].split()[1]


MISSING, INVALID = "Bearer", 'Bearer error="invalid_token"'


@pytest.mark.parametrize(
    ("header", "challenge"),
    [
        (None, MISSING),
        ("", MISSING),
        ("Bearer", MISSING),
        ("{token}", MISSING),
        ("Basic {token}", MISSING),
        ("Bearer{token}", MISSING),
        ("Bearer x", INVALID),
        ("Bearer foi_", INVALID),
        ("Bearer {token}0", INVALID),
        ("Bearer {cut}", INVALID),
        ("Bearer {token} {token}", INVALID),
        ("Bearer {token},", INVALID),
        ('Bearer "{token}"', INVALID),
        ("Bearer token={token}", INVALID),
        ("Bearer " + "x" * 10_000, INVALID),
        ("Bearer \xff\xfe", INVALID),
        ("Bearer foi_" + "0" * 49, INVALID),
    ],
)
def test_a_request_without_a_right_key_is_401(
    keyed_address: str, keys: ApiKeys, header: str | None, challenge: str
) -> None:
    token, _ = keys.create("one")
    headers = {}
    if header is not None:
        headers = {b"Authorization": header.format(token=token, cut=token[:-1]).encode("latin-1")}
    list_and_submit = [("GET", "/v1/edits"), ("POST", "/v1/edits"), ("POST", "/edits")]
    for method, path in [*list_and_submit, ("GET", f"/v1/edits/{NOWHERE}/events")]:
        answer = httpx.request(method, keyed_address + path, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, challenge)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "/problems/unauthorized"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_may_be_in_any_case(keyed_address: str, keys: ApiKeys, scheme: str) -> None:
    token, _ = keys.create("one")
    assert httpx.get(f"{keyed_address}/v1/edits", headers={"Authorization": f"{scheme} {token}"}).status_code == 200


def test_unknown_revoked_and_mistyped_keys_answer_alike(caller: Caller, keys: ApiKeys, redis: Redis) -> None:
    revoked, unknown, mistyped = caller(), caller(), caller()
    keys.revoke(key_id(revoked))
    mistyped.headers["Authorization"] += "0"
    redis.hdel("foi:keys", str(digest_of(token_of(unknown))))
    answers = [client.get("/v1/edits") for client in (revoked, unknown, mistyped)]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.headers["www-authenticate"] for answer in answers}) == 1


def test_health_and_the_documentation_need_no_key(keyed_address: str) -> None:
    for path in ("/livez", "/docs", "/openapi.json"):
        assert httpx.get(keyed_address + path).status_code == 200
    api = httpx.get(f"{keyed_address}/openapi.json").json()
    (scheme,) = api["components"]["securitySchemes"].items()
    assert (scheme[1]["type"], scheme[1]["scheme"]) == ("http", "bearer")
    assert api["paths"]["/v1/edits"]["post"]["security"] == [{scheme[0]: []}]


def test_a_key_without_the_role_is_403_and_told_which_it_needs(caller: Caller, redis: Redis) -> None:
    read_only, submit_only = caller("read"), caller("submit")
    mine = submit(submit_only).json()["urls"]["self"]
    for client, method, path, role in (
        (read_only, "POST", "/v1/edits", "submit"),
        (read_only, "POST", mine + "/cancel", "submit"),
        (read_only, "DELETE", mine, "submit"),
        (submit_only, "GET", mine, "read"),
        (submit_only, "GET", mine + "/events", "read"),
        (submit_only, "GET", mine + "/files/input.png", "read"),
        (submit_only, "GET", "/v1/edits", "read"),
    ):
        answer = client.request(method, path)
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/forbidden"), (method, path)
        assert f"'{role}'" in answer.json()["detail"]
    assert submit_only.delete(mine).status_code == 204
    assert redis.zcard(f"foi:edits:{key_id(read_only)}") == 0


def test_a_foreign_edit_and_a_missing_one_answer_alike(
    caller: Caller, repository: EditRepository, keyed_settings: Settings
) -> None:
    owner, other = caller(), caller()
    deleted, done, queued = (submit(owner).json()["id"] for _ in range(3))
    run_edit(FakeEngine(), repository, BlobStore(keyed_settings.data_dir / "blobs"), done)
    assert owner.delete(f"/v1/edits/{deleted}").status_code == 204
    assert owner.get(f"/v1/edits/{deleted}").status_code == 410
    for method, rest in (
        ("GET", ""),
        ("POST", "/cancel"),
        ("DELETE", ""),
        ("GET", "/events"),
        ("GET", "/files/input.png"),
        ("GET", "/files/result.png"),
        ("GET", "/files/nope"),
    ):
        missing = other.request(method, f"/v1/edits/{NOWHERE}{rest}")
        assert missing.status_code == 404
        for foreign in (deleted, done, queued):
            answer = other.request(method, f"/v1/edits/{foreign}{rest}")
            assert answer.status_code == 404
            assert answer.content.replace(foreign.encode(), NOWHERE.encode()) == missing.content
            assert unlike(answer, missing) <= {"date", "x-request-id"}
    assert owner.get(f"/v1/edits/{queued}").json()["status"] == "queued"


def unlike(one: httpx.Response, other: httpx.Response) -> set[str]:
    """The headers in which they differ."""
    names = one.headers.keys() | other.headers.keys()
    return {name for name in names if one.headers.get(name) != other.headers.get(name)}


def test_a_list_shows_the_own_edits_and_an_admin_sees_all(caller: Caller) -> None:
    one, other, admin = caller(), caller(), caller("admin")
    mine, theirs = submit(one).json()["id"], submit(other).json()["id"]

    def listed(client: httpx.Client) -> set[str]:
        return {edit["id"] for edit in client.get("/v1/edits").json()["data"]}

    assert (listed(one), listed(other), listed(admin)) == ({mine}, {theirs}, {mine, theirs})
    assert admin.get(f"/v1/edits/{mine}").status_code == 200
    assert admin.get(f"/v1/edits/{mine}/files/input.png").status_code == 200
    assert admin.post(f"/v1/edits/{theirs}/cancel").json()["status"] == "canceled"
    assert submit(admin).status_code == 202
    assert admin.get(f"/v1/edits/{NOWHERE}").status_code == 404


def test_a_revoked_key_is_refused_at_once_and_loses_its_event_stream(caller: Caller, keys: ApiKeys) -> None:
    client, other = caller(), caller()
    address = submit(client).json()["urls"]["self"]
    revoked_at: list[float] = []

    def revoke() -> None:
        keys.revoke(key_id(client))
        revoked_at.append(time.monotonic())

    with client.stream("GET", f"{address}/events") as answer:
        lines = answer.iter_lines()
        assert next(lines) == "event: status"
        with later(0.7, revoke):
            for _ in lines:
                pass
    assert time.monotonic() - revoked_at[0] < 1.2  # one second, and some for a busy machine
    assert client.get(address).status_code == 401
    assert other.get("/v1/edits").status_code == 200


def test_a_stream_goes_on_while_the_key_is_good(
    caller: Caller, repository: EditRepository, keyed_settings: Settings
) -> None:
    client = caller()
    edit = submit(client).json()
    blobs = BlobStore(keyed_settings.data_dir / "blobs")
    run = later(1.2, run_edit, FakeEngine(), repository, blobs, edit["id"])
    with run, client.stream("GET", edit["urls"]["events"]) as answer:
        assert "event: done" in list(answer.iter_lines())


def test_the_edits_of_one_key_in_flight_are_limited_until_one_ends(
    tmp_path: Path, redis_url: str, caller: Caller
) -> None:
    settings = Settings(auth="keys", data_dir=tmp_path, redis_url=redis_url, max_edits_per_key=2)
    one, other = caller(), caller()
    with serving(settings, redis_url) as url:
        one.base_url = other.base_url = url
        address = submit(one).json()["urls"]["self"]
        assert submit(one).status_code == 202
        refused = submit(one)
        assert (refused.status_code, refused.json()["type"]) == (429, "/problems/quota-exceeded")
        assert int(refused.headers["retry-after"]) > 0
        assert submit(other).status_code == 202
        one.post(f"{address}/cancel")
        assert submit(one).status_code == 202


def test_without_redis_nobody_is_let_in(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis")
    server.start()
    redis = connect(server.url, decode=True)
    token, _ = ApiKeys(redis).create("one")
    redis.close()
    with serving(Settings(auth="keys", data_dir=tmp_path), server.url) as url:

        def ask(token: str) -> httpx.Response:
            return httpx.get(f"{url}/v1/edits", headers={"Authorization": f"Bearer {token}"}, timeout=20)

        assert ask(token).status_code == 200
        server.stop()
        answer = ask(token)
        assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
        assert answer.headers["retry-after"] == "5"
        assert ask(token[:-1]).status_code == 401, "a typing error is seen without Redis"
        server.start()
        assert ask(token).status_code == 200
    server.stop()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.org", "127.0.0.1.example.org"])
def test_it_does_not_listen_for_others_without_keys_unless_told_so(host: str) -> None:
    with pytest.raises(AuthUndecidedError, match="FOI_AUTH=keys"):
        keys_on(Settings(host=host))
    assert keys_on(Settings(host=host, auth="keys"))
    assert not keys_on(Settings(host=host, auth="off"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_keys_are_off_by_default_on_this_machine_alone(host: str) -> None:
    assert not keys_on(Settings(host=host))
    assert keys_on(Settings(host=host, auth="keys"))


def test_the_service_says_why_it_does_not_start_and_starts_nothing(tmp_path: Path) -> None:
    environment = {"FOI_HOST": "0.0.0.0", "FOI_AUTH": "", "FOI_REDIS_URL": "", "FOI_DATA_DIR": str(tmp_path)}
    process = python("-m", "service", environment=environment, stderr=subprocess.PIPE)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, len(err.splitlines())) == (1, 1)
    assert "FOI_AUTH=off" in err
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(AuthUndecidedError):
        create_app(Settings(host="0.0.0.0", data_dir=tmp_path), "redis://127.0.0.1:1")


def test_on_this_machine_no_key_is_needed_and_none_is_looked_at(client: httpx.Client) -> None:
    assert submit(client).status_code == 202
    assert client.get("/v1/edits", headers={"Authorization": "Bearer nonsense"}).status_code == 200
