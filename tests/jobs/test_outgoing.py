"""Which addresses are asked: only public ones, whatever they are called, at every connection."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpcore
import httpx
import pytest

from jobs.outgoing import ForbiddenAddress, check_url, explain, is_public, open_client

PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e", "100.128.0.1"]
FORBIDDEN = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "169.254.170.2",
    "168.63.129.16",
    "100.64.0.1",
    "100.127.255.255",
    "100.100.100.200",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::7f00:1",
    "100::1",
    "2001::1",
    "2001:0:7f00:1::",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%lo",
    "2606:4700::1%lo",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)
    check_url(f"http://{f'[{address}]' if ':' in address else address}:8080/x")


@pytest.mark.parametrize("address", FORBIDDEN)
def test_all_other_addresses_are_not(address: str) -> None:
    assert not is_public(address)
    with pytest.raises(ForbiddenAddress):
        check_url(f"http://{f'[{address}]' if ':' in address else address}/")


@pytest.mark.parametrize(
    "url",
    [
        "http://2130706433/",
        "http://0177.0.0.1/",
        "http://0x7f.1/",
        "http://0x7f000001/",
        "http://127.1/",
        "http://127.0.0.1./",
        "http://0/",
        "http://8.8.8.08/",
        "http://a.b.3/",
        "http://①②⑦.0.0.1/",
        "http://public.example@127.0.0.1/",
        "http://127.0.0.1@public.example/",
        "http://user:password@public.example/",
        "http://public.example\\@127.0.0.1/",
        "ftp://public.example/",
        "file:///etc/passwd",
        "gopher://public.example/",
        "unix:/run/x.sock",
        "javascript:1",
        "//public.example/",
        "public.example",
        "http://",
        "http:///x",
        "http://[::1/",
        "http://public.example:99999/",
        "http://public.example/\n",
        "",
        "http://public.example/" + "x" * 2048,
    ],
)
def test_what_is_wrong_with_a_url_is_said_before_anyone_is_asked(url: str) -> None:
    with pytest.raises(ForbiddenAddress, match="must"):
        check_url(url)


@pytest.mark.parametrize("url", ["https://public.example/x?y=1#z", "http://7.example:81", "HTTP://bücher.example/"])
def test_names_are_left_to_the_moment_of_the_connection(url: str) -> None:
    check_url(url)


def test_closed_networks_allow_their_own_addresses_and_nothing_else() -> None:
    check_url("http://127.0.0.1:9/", allow_private=True)
    check_url("http://[fd00::1]/", allow_private=True)
    with pytest.raises(ForbiddenAddress):
        check_url("ftp://127.0.0.1/", allow_private=True)


class Network(httpcore.AsyncNetworkBackend):
    """Takes every address for the local server's, and remembers which were asked for."""

    def __init__(self, port: int, broken: tuple[str, ...] = ()) -> None:
        self.asked: list[str] = []
        self._port, self._broken = port, broken

    async def connect_tcp(self, host: str, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        self.asked.append(host)
        if host in self._broken:
            raise httpcore.ConnectError("no route")
        return await httpcore.AnyIOBackend().connect_tcp("127.0.0.1", self._port)


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.headers["host"].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def names(**table: list[str] | list[list[str]]) -> Callable[[str, int], Awaitable[list[str]]]:
    """A resolver: the addresses of a name, or one list of them for each time that it is asked."""

    async def resolve(host: str, _: int) -> list[str]:
        found: Any = table[host.partition(".")[0]]
        return list(found.pop(0) if isinstance(found[0], list) else found)

    return resolve


def get(url: str, times: int = 1, **options: Any) -> list[str]:
    async def ask() -> list[str]:
        bodies = []
        for _ in range(times):
            async with open_client(5, **{"allow_private": False, **options}) as client:
                bodies.append((await client.get(url)).text)
        return bodies

    return asyncio.run(ask())


def test_the_checked_address_is_connected_to_and_the_name_stays_the_host(port: int) -> None:
    network = Network(port)
    assert get("http://good.example/", resolve=names(good=["8.8.8.8"]), network=network) == ["good.example"]
    assert network.asked == ["8.8.8.8"]


def test_a_further_address_is_tried_when_the_first_does_not_answer(port: int) -> None:
    network = Network(port, broken=("2606:4700::1",))
    assert get("http://good.example/", resolve=names(good=["2606:4700::1", "8.8.8.8"]), network=network)
    assert network.asked == ["2606:4700::1", "8.8.8.8"]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_names_of_forbidden_addresses_are_never_connected_to(port: int, address: str) -> None:
    network = Network(port)
    with pytest.raises(ForbiddenAddress):
        get("http://bad.example/", resolve=names(bad=["8.8.8.8", address]), network=network)
    assert network.asked == []


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "http://[::1]/", "http://2130706433/", "http://127.1/"])
def test_literal_addresses_are_checked_again_at_the_connection(port: int, url: str) -> None:
    network = Network(port)
    with pytest.raises(ForbiddenAddress):
        get(url, network=network)
    assert network.asked == []


def test_a_name_that_changes_its_address_is_checked_each_time(port: int) -> None:
    network = Network(port)
    with pytest.raises(ForbiddenAddress):
        get("http://moves.example/", 2, resolve=names(moves=[["8.8.8.8"], ["127.0.0.1"]]), network=network)
    assert network.asked == ["8.8.8.8"]


def test_tls_is_for_the_name_and_not_for_the_address(port: int) -> None:
    class Stream(httpcore.AsyncNetworkStream):
        async def start_tls(
            self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, *_: Any, **__: Any
        ) -> httpcore.AsyncNetworkStream:
            assert ssl_context.check_hostname
            raise httpcore.ConnectError(f"TLS for {server_hostname}")

    class Wire(Network):
        async def connect_tcp(self, host: str, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
            assert host == "8.8.8.8"
            return Stream()

    with pytest.raises(httpx.ConnectError, match=r"TLS for good\.example"):
        get("https://good.example/", resolve=names(good=["8.8.8.8"]), network=Wire(port))


def test_proxies_of_the_environment_are_not_used(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{port}")
    with pytest.raises(ForbiddenAddress):
        get("http://localhost/")


def test_the_systems_resolver_is_asked_and_what_it_says_is_checked(port: int) -> None:
    assert get(f"http://localhost:{port}/", allow_private=True) == [f"localhost:{port}"]
    with pytest.raises(ForbiddenAddress):
        get(f"http://localhost:{port}/")
    with pytest.raises(httpx.ConnectError):
        get("http://nowhere.invalid/")
    with pytest.raises(httpx.ConnectError):
        get(f"http://{'x' * 70}.invalid/")


def test_a_resolver_that_hangs_is_a_timeout() -> None:
    async def hang(*_: object) -> list[str]:
        await asyncio.sleep(60)
        return []

    async def ask() -> None:
        async with open_client(0.1, allow_private=False, resolve=hang) as client:
            await client.get("http://slow.example/")

    with pytest.raises(httpx.ConnectTimeout):
        asyncio.run(ask())


def test_forbidden_and_missing_addresses_sound_alike() -> None:
    alike = [ForbiddenAddress("x"), httpx.ConnectError("no such name"), httpx.ConnectError("refused")]
    assert len({explain(error, 1) for error in alike}) == 1
