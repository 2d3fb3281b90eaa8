"""Whose web pages may act through the service: its own, and those of the origins that the operator lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError
from redis import Redis

from jobs.keys import ApiKeys
from jobs.settings import Settings
from service import tokens
from tests.service.conftest import seen_a_moment_ago, serving
from tests.service.test_bad_input import refused
from tests.service.test_edits import submit
from tests.service.test_stream import everything

APP = "https://app.example.org"
FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Origin": "", "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "something new"},
]


@pytest.fixture(scope="module")
def shared_settings(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Settings:
    """Keys are on, and one origin may call."""
    folder: Path = tmp_path_factory.mktemp("origins")
    return Settings(
        data_dir=folder,
        redis_url=redis_url,
        auth="keys",
        cors_origins=(APP,),
        public_url="https://edits.example.org/foi",
    )


@pytest.fixture(scope="module")
def shared_address(shared_settings: Settings, redis_url: str) -> Iterator[str]:
    with serving(shared_settings, redis_url) as url:
        yield url


@pytest.fixture
def keyed(shared_address: str, redis: Redis) -> Iterator[httpx.Client]:
    seen_a_moment_ago(redis)
    token, key = ApiKeys(redis).create("mine")
    headers = {"Authorization": f"Bearer {token}", "X-Key": key.id}
    with httpx.Client(base_url=shared_address, headers=headers, timeout=20) as client:
        yield client


@pytest.mark.parametrize("headers", FOREIGN)
@pytest.mark.parametrize(
    "path", ["/v1/edits", "/edits", "/v1/masks", "/v1/instructions", "/v1/images/edits", "/v1/edits/edit_1/cancel"]
)
def test_a_foreign_page_can_do_nothing(client: httpx.Client, redis: Redis, path: str, headers: dict[str, str]) -> None:
    assert "FOI_CORS_ORIGINS" in refused(submit(client, path=path, **headers), 403, "forbidden")["detail"]
    assert redis.keys("foi:edit:*") == []


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_foreign_page_can_do_nothing_with_a_key_either(keyed: httpx.Client, headers: dict[str, str]) -> None:
    edit = submit(keyed).json()
    refused(submit(keyed, **headers), 403, "forbidden")
    refused(keyed.delete(edit["urls"]["self"], headers=headers), 403, "forbidden")
    refused(keyed.request("PATCH", edit["urls"]["self"], headers=headers), 403, "forbidden")
    assert keyed.get(edit["urls"]["self"]).json()["status"] == "queued"


@pytest.mark.parametrize("site", [None, "same-origin", "none"])
def test_its_own_page_can(client: httpx.Client, site: str | None) -> None:
    headers = {"Origin": f"http://{client.base_url.netloc.decode()}", **({"Sec-Fetch-Site": site} if site else {})}
    assert submit(client, **headers).status_code == 202


def test_behind_a_proxy_that_changes_the_host_its_own_page_can(keyed: httpx.Client) -> None:
    assert submit(keyed, Origin="https://edits.example.org", Host="10.0.0.7:8000").status_code == 202
    assert submit(
        keyed, Origin="https://else.example.org", Host="10.0.0.7", **{"Sec-Fetch-Site": "same-origin"}
    ).is_success
    refused(submit(keyed, Origin="http://edits.example.org", Host="10.0.0.7:8000"), 403, "forbidden")


def test_a_page_that_is_listed_can_and_reads_the_answers(keyed: httpx.Client) -> None:
    page = {"Origin": APP, "Sec-Fetch-Site": "cross-site"}
    answers = [
        submit(keyed, **page),
        keyed.get("/v1/edits", headers=page),
        keyed.get("/v1/edits", headers={**page, "Authorization": "Bearer wrong"}),
        keyed.get("/nowhere", headers=page),
    ]
    assert [answer.status_code for answer in answers] == [202, 200, 401, 404]
    assert {answer.headers["access-control-allow-origin"] for answer in answers} == {APP}
    exposed = answers[0].headers["access-control-expose-headers"].split(", ")
    assert {"Location", "Retry-After", "ETag", "X-Request-ID"} <= set(exposed)
    assert "access-control-allow-credentials" not in answers[0].headers


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/edits"), ("DELETE", "/v1/edits/edit_1"), ("GET", "/v1/edits/edit_1/events")]
)
def test_a_preflight_of_a_page_that_is_listed_is_answered(keyed: httpx.Client, method: str, path: str) -> None:
    asked = {
        "Origin": APP,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,idempotency-key,last-event-id,prefer",
    }
    answer = keyed.options(path, headers=asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == APP
    assert method in answer.headers["access-control-allow-methods"]
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    other = keyed.options(path, headers={**asked, "Origin": "https://evil.example"})
    assert (other.status_code, other.headers.get("access-control-allow-origin")) == (400, None)


def test_where_nothing_is_listed_no_page_reads_an_answer(client: httpx.Client) -> None:
    for origin in ("https://evil.example", APP):
        assert "access-control-allow-origin" not in client.get("/v1/edits", headers={"Origin": origin}).headers
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        assert client.options("/v1/edits", headers=asked).headers.get("access-control-allow-origin") is None


@pytest.mark.parametrize(
    ("given", "origins"),
    [
        ("", ()),
        ("https://app.example.org", (APP,)),
        (" https://APP.example.org:443/ ,http://localhost:3000,", (APP, "http://localhost:3000")),
        ("http://[::1]:80", ("http://[::1]",)),
    ],
)
def test_origins_are_read_as_browsers_write_them(
    monkeypatch: pytest.MonkeyPatch, given: str, origins: tuple[str, ...]
) -> None:
    monkeypatch.setenv("FOI_CORS_ORIGINS", given)
    assert Settings().cors_origins == origins


@pytest.mark.parametrize(
    "given",
    [
        "*",
        "null",
        "app.example.org",
        "https://",
        "https://app.example.org/page",
        "ftp://a",
        "https://a:b",
        "https://u@a",
    ],
)
def test_what_is_no_origin_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("FOI_CORS_ORIGINS", given)
    with pytest.raises(ValidationError, match="is no origin"):
        Settings()


def stream_token(client: httpx.Client, edit: dict[str, dict[str, str]]) -> str:
    answer = client.post(f"{edit['urls']['events']}/token")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    url: str = answer.json()["url"]
    assert url == f"{edit['urls']['events']}?token={answer.json()['token']}"
    return url


def test_a_stream_token_opens_the_events_of_its_edit_and_nothing_else(keyed: httpx.Client, shared_address: str) -> None:
    edit, other = (submit(keyed).json() for _ in range(2))
    url = stream_token(keyed, edit)
    query = url.partition("?")[2]
    keyed.post(edit["urls"]["cancel"])
    with httpx.Client(base_url=shared_address, headers={"Origin": APP}, timeout=20) as browser:
        heard = everything(browser, url)
        assert (heard[0].data["id"], heard[-1].event) == (edit["id"], "done")
        assert browser.get(url, headers={"Last-Event-ID": heard[-1].id}).status_code == 204
        refused(browser.get(f"{other['urls']['events']}?{query}"), 401, "unauthorized")
        for path in (edit["urls"]["self"], "/v1/edits", f"{edit['urls']['self']}/deliveries"):
            refused(browser.get(f"{path}?{query}"), 401, "unauthorized")


def test_a_stream_token_that_was_changed_or_is_too_old_opens_nothing(
    keyed: httpx.Client, shared_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit = submit(keyed).json()
    url = stream_token(keyed, edit)
    ends, digest, signature = url.partition("token=")[2].split(".")
    path = edit["urls"]["events"]
    changed = [
        f"{int(ends) + 1}.{digest}.{signature}", f"{ends}..{signature}", f"{ends}.{'0' * 64}.{signature}",
        f"{ends}.{digest}.{'0' * 64}", f"{ends}.{digest}.", "", "..", "x" * 5000, f"{ends}.{digest}.{signature}.",
    ]  # fmt: skip
    for token in changed:
        refused(httpx.get(f"{shared_address}{path}", params={"token": token}), 401, "unauthorized")
    monkeypatch.setattr(tokens, "TTL_S", -1)
    refused(httpx.get(f"{shared_address}{stream_token(keyed, edit)}"), 401, "unauthorized")


def test_a_stream_token_ends_with_its_key_also_while_its_stream_is_open(
    keyed: httpx.Client, shared_address: str, redis: Redis
) -> None:
    url = f"{shared_address}{stream_token(keyed, submit(keyed).json())}"
    with httpx.stream("GET", url, timeout=20) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "event: status"
        ApiKeys(redis).revoke(keyed.headers["x-key"])
        assert not [line for line in lines if line.startswith("event: ")]
    refused(httpx.get(url), 401, "unauthorized")


def test_a_stream_token_is_only_made_for_an_edit_that_one_may_see(keyed: httpx.Client, redis: Redis) -> None:
    edit = submit(keyed).json()
    other, _ = ApiKeys(redis).create("other")
    answer = keyed.post(f"{edit['urls']['events']}/token", headers={"Authorization": f"Bearer {other}"})
    refused(answer, 404, "not-found")


def test_without_keys_a_page_may_do_the_same(client: httpx.Client) -> None:
    edit = submit(client).json()
    client.post(edit["urls"]["cancel"])
    assert everything(client, stream_token(client, edit))[-1].event == "done"
