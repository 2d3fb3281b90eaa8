"""Every answer names its request, and so does every log line."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.requests import HEADER
from tests.support import python, wait_until

NEW = re.compile(r"[0-9a-f]{32}")


@pytest.mark.parametrize("given", ["a", "7f1c-33.ab_c", "x" * 128, "trace:1/2+3=4@host"])
def test_the_callers_id_is_kept(client: httpx.Client, given: str) -> None:
    for path in ("/livez", "/v1/edits", "/v1/edits/nope", "/nothing/here"):
        assert client.get(path, headers={HEADER: given}).headers[HEADER] == given


@pytest.mark.parametrize("given", [None, "", "x" * 129, "two words", 'quo"te', "ta\tb", "ü", "a%0a"])
def test_another_is_replaced_by_a_new_one(client: httpx.Client, given: str | None) -> None:
    headers = {} if given is None else {HEADER: given.encode("latin-1")}
    first, second = (client.get("/livez", headers=headers).headers[HEADER] for _ in range(2))
    assert NEW.fullmatch(first)
    assert NEW.fullmatch(second)
    assert first != second


SERVICE = """
import sys, uvicorn
from jobs import logs
from jobs.settings import Settings
from service.app import create_app

settings = Settings()
logs.configure(settings)
app = create_app(settings, settings.redis_url)

@app.get("/fails")
async def fails():
    logs.get_logger("test").info("before")
    raise RuntimeError("unexpected")

uvicorn.run(app, host=settings.host, port=settings.port, log_config=None)
"""


@pytest.fixture
def failing(tmp_path: Path, redis_url: str) -> Iterator[tuple[str, Path]]:
    """The address of a service in a process of its own with a route that fails, and the file of its log lines."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = {
        "FOI_PORT": str(port),
        "FOI_DATA_DIR": str(tmp_path),
        "FOI_REDIS_URL": redis_url,
        "FOI_LOG_FORMAT": "json",
    }
    log = tmp_path / "log"
    with log.open("w") as stderr:
        process = python("-c", SERVICE, environment=environment, stderr=stderr)
    wait_until(lambda: "Uvicorn running" in log.read_text(), seconds=60)
    yield f"http://127.0.0.1:{port}", log
    process.terminate()
    process.wait()


def test_an_unexpected_error_has_it_too_and_so_has_every_line_of_its_log(failing: tuple[str, Path]) -> None:
    url, log = failing
    with httpx.Client(base_url=url) as client:
        answer = client.get("/fails", headers={HEADER: "mine"})
        assert (answer.status_code, answer.headers[HEADER]) == (500, "mine")
        assert answer.json()["type"] == "/problems/internal"
    other = httpx.get(f"{url}/livez")  # a new connection: the server closes one whose request failed
    wait_until(lambda: "/livez" in log.read_text())
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    events = {line["event"]: line for line in lines if line.get("request_id") == "mine"}
    assert events.keys() >= {"before", "Exception in ASGI application\n"}
    assert any("GET /fails" in event for event in events)
    (access,) = [line for line in lines if "GET /livez" in line["event"]]
    assert access["request_id"] == other.headers[HEADER]
