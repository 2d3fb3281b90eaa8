"""Addresses that callers give: pictures from a real server that does everything wrong, and webhooks' addresses."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from jobs.settings import Settings
from jobs.version import version
from service import fetch
from service.fetch import check_webhook_url, fetch_image
from service.problems import Problem
from tests.support import encoded, picture

PICTURE = encoded(picture())
LIMIT = 100_000


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        with suppress(OSError):  # the client leaves in the middle
            getattr(self, self.path.strip("/").split("/")[0])()

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def picture(self) -> None:
        self._answer(200, PICTURE)

    def agent(self) -> None:
        self._answer(200, self.headers["User-Agent"].encode())

    def full(self) -> None:
        self._answer(200, b"x" * LIMIT)

    def missing(self) -> None:
        self._answer(404, b"no such thing")

    def endless(self) -> None:
        self._answer(200)
        while True:
            self.wfile.write(b"x" * 65_536)

    def slow(self) -> None:
        self._answer(200)
        while True:
            self.wfile.write(b"x")
            time.sleep(0.05)

    def mute(self) -> None:
        time.sleep(1.5)

    def nonsense(self) -> None:
        self.wfile.write(b"SSH-2.0-x\r\n")

    def cut(self) -> None:
        self._answer(200, b"half", Content_Length="8")

    def packed(self) -> None:
        self._answer(200, gzip.compress(PICTURE), Content_Encoding="gzip")

    def hop(self) -> None:
        """`/hop/2`: two redirects, then the picture. Their bodies never end."""
        left = int(self.path.split("/")[-1])
        self._answer(302, Location="/picture" if left == 1 else f"/hop/{left - 1}")
        while True:
            self.wfile.write(b"x" * 65_536)

    def loop(self) -> None:
        self._answer(307, Location="/loop")

    def away(self) -> None:
        port = self.server.server_address[1]
        places = {"file": "file:///etc/passwd", "user": f"http://u:p@127.0.0.1:{port}/picture", "port": "//a:99999/"}
        self._answer(302, Location=places[self.path.split("/")[-1]])

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as httpd:
        httpd.daemon_threads = True
        httpd.block_on_close = False
        thread = Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


@pytest.fixture
def lenient(settings: Settings) -> Settings:
    return settings.model_copy(update={"allow_private_urls": True, "max_body_bytes": LIMIT})


def fetched(url: str, settings: Settings) -> bytes:
    async def get() -> bytes:
        upload = await fetch_image(url, settings)
        data = await upload.read()
        await upload.close()
        return data

    return asyncio.run(get())


def refused(url: str, settings: Settings) -> str:
    with pytest.raises(Problem) as caught:
        fetched(url, settings)
    assert caught.value.slug == "invalid-parameter"
    assert caught.value.errors == [{"pointer": "/image_url", "detail": caught.value.detail}]
    return caught.value.detail.removeprefix("image_url: ")


@pytest.mark.parametrize("path", ["picture", "hop/1", "hop/3"])
def test_the_bytes_come_back_from_the_start_after_at_most_three_redirects(
    server: str, lenient: Settings, path: str
) -> None:
    assert fetched(f"{server}/{path}", lenient) == PICTURE


def test_who_asks_is_said(server: str, lenient: Settings) -> None:
    assert fetched(f"{server}/agent", lenient).decode() == f"focus-on-your-instruction/{version()}"


def test_a_body_of_exactly_the_limit_is_taken(server: str, lenient: Settings) -> None:
    assert len(fetched(f"{server}/full", lenient)) == LIMIT


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing", "answers with status 404 instead of 200"),
        ("endless", f"has more than {LIMIT} bytes"),
        ("hop/4", "redirects more than 3 times"),
        ("loop", "redirects more than 3 times"),
        ("packed", "answers with a compressed body, which was not asked for"),
        ("nonsense", "broke off its answer, or did not answer in HTTP"),
        ("cut", "broke off its answer, or did not answer in HTTP"),
        ("away/file", "cannot be reached; it must be a public address of http or https"),
        ("away/user", "cannot be reached; it must be a public address of http or https"),
        ("away/port", "cannot be reached; it must be a public address of http or https"),
    ],
)
def test_the_problem_says_what_is_wrong(server: str, lenient: Settings, path: str, reason: str) -> None:
    assert refused(f"{server}/{path}", lenient) == reason


@pytest.mark.parametrize("path", ["slow", "mute"])
def test_the_time_is_bounded_as_a_whole(
    server: str, lenient: Settings, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "TOTAL_S", 0.4)
    began = time.monotonic()
    assert refused(f"{server}/{path}", lenient) == "did not answer within 0.4 s"
    assert time.monotonic() - began < 2


def test_private_refused_and_unknown_addresses_answer_alike(server: str, settings: Settings, lenient: Settings) -> None:
    private = refused(server.replace("127.0.0.1", "localhost"), settings)
    nobody = refused("http://127.0.0.1:1/", lenient)
    unknown = refused("http://nowhere.invalid/", settings)
    assert private == nobody == unknown


def test_what_can_be_seen_in_the_address_is_said_plainly(server: str, settings: Settings) -> None:
    assert refused(server, settings) == "must be a public address"
    assert refused("ftp://x.example/a.png", settings) == "must begin with http:// or https:// and name a host"


@pytest.mark.parametrize(
    "url",
    ["", "x", "ftp://a.example/", "http://127.0.0.1/", "http://[::1]:6379/", "http://u:p@a.example/", "http://127.1"],
)
def test_addresses_that_are_never_told_are_refused(settings: Settings, url: str) -> None:
    with pytest.raises(Problem) as caught:
        check_webhook_url(url, settings)
    assert caught.value.slug == "webhook-url-forbidden"
    assert caught.value.errors[0]["pointer"] == "/webhook_url"
    assert caught.value.detail.startswith("webhook_url: must ")


def test_other_addresses_are_taken(settings: Settings) -> None:
    check_webhook_url("https://receiver.example/hook", settings)
    check_webhook_url("http://127.0.0.1:9/", settings.model_copy(update={"allow_private_urls": True}))
