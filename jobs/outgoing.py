"""Requests to addresses that callers gave: to public ones only, which is checked as each connection is made.

Our own because httpx-secure 2.0 connects to an address before it checks it and believes an answer of DNS for ten
minutes, and ssrfguard 0.4 lets the NAT64, 6to4 and Teredo forms of public addresses through.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import cache
from ipaddress import IPv6Address, ip_address, ip_network

import anyio
import httpcore
import httpx
from anyio import CapacityLimiter, to_thread

from jobs.version import NAME, version

MAX_URL_LENGTH = 2048
MAX_PORT = 65_535
USER_AGENT = f"{NAME}/{version()}"
Resolver = Callable[[str, int], Awaitable[list[str]]]

_NETWORK = httpcore.AnyIOBackend()
_GLOBAL_UNICAST = ip_network("2000::/3")
"""All of IPv6 that is routed. Outside: loopback, private, link-local, multicast, NAT64, IPv4-mapped and -compatible."""
_REFUSED = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # carrier-grade NAT
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # the host agent of Azure
            "169.254.0.0/16",  # link-local, with the metadata services
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, broadcast
            "2001::/23",  # protocol assignments, with Teredo
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4
            "3fff::/20",  # documentation
        ),
    )
)
_ENDS_IN_NUMBER = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)\.?", re.IGNORECASE)


class ForbiddenAddress(Exception):
    """The address must not be asked; the message is for whoever gave it."""


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address) and (ip.scope_id is not None or ip not in _GLOBAL_UNICAST):
        return False
    return not any(ip in network for network in _REFUSED)


def check_url(url: str, *, allow_private: bool = False) -> None:
    """Raises ForbiddenAddress for what is wrong with a URL whatever its name resolves to."""
    if len(url) > MAX_URL_LENGTH:
        raise ForbiddenAddress(f"must have at most {MAX_URL_LENGTH} characters")
    try:
        parsed = httpx.URL(url)
        host = parsed.host
    except (httpx.InvalidURL, UnicodeError):  # a host that is no internationalised name shows only when it is asked for
        raise ForbiddenAddress("must be a valid URL") from None
    if parsed.scheme not in ("http", "https") or not host:
        raise ForbiddenAddress("must begin with http:// or https:// and name a host")
    if parsed.port is not None and not 1 <= parsed.port <= MAX_PORT:
        raise ForbiddenAddress(f"must have a port from 1 to {MAX_PORT}")
    if parsed.userinfo:
        raise ForbiddenAddress("must not hold a user name or a password")
    if not allow_private:
        _public_literal(host)


def open_client(
    timeout_s: float,
    *,
    allow_private: bool,
    resolve: Resolver | None = None,
    network: httpcore.AsyncNetworkBackend = _NETWORK,
) -> httpx.AsyncClient:
    """A client that follows no redirects by itself and uses no proxies. Its requests raise ForbiddenAddress, beside
    the errors of httpx."""
    backend = network if allow_private else _PublicNetwork(network, resolve or _look_up)
    headers = {"User-Agent": USER_AGENT}
    return httpx.AsyncClient(transport=_Transport(backend), timeout=timeout_s, trust_env=False, headers=headers)


def explain(error: Exception, timeout_s: float) -> str:
    """Why a request failed, in the words for its caller: what is forbidden sounds like what is not there, so that
    nobody learns which names and addresses a private network has."""
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return f"did not answer within {timeout_s:g} s"
    if isinstance(error, ForbiddenAddress | httpx.ConnectError | httpx.UnsupportedProtocol | httpx.InvalidURL):
        return "cannot be reached; it must be a public address of http or https"
    return "broke off its answer, or did not answer in HTTP"


def explain_in_full(error: Exception, timeout_s: float) -> str:
    """As `explain`, for whoever has to mend what is asked: which step failed, name, connection, TLS or answer. A name
    that has no address and one of a private address still sound alike; only public ones are ever connected to."""
    causes = list(_causes(error))
    if isinstance(error, httpx.ConnectTimeout):
        return f"took no connection within {timeout_s:g} s"
    if any(isinstance(cause, ForbiddenAddress | socket.gaierror | UnicodeError) for cause in causes):
        return "has no public address: DNS does not know the name, or the address is private and is not called"
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its TLS certificate is not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {cause.reason or cause.strerror}"
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "refuses connections"
    if isinstance(error, httpx.ConnectError):
        return "cannot be connected to"
    return explain(error, timeout_s)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class _Transport(httpx.AsyncHTTPTransport):
    """httpx lets one choose everything about connections but who makes them."""

    def __init__(self, backend: httpcore.AsyncNetworkBackend) -> None:
        self._pool = httpcore.AsyncConnectionPool(ssl_context=_tls(), network_backend=backend)


@cache
def _tls() -> ssl.SSLContext:
    """Reading the authorities takes longer than most requests. `SSL_CERT_FILE` names further ones."""
    return httpx.create_ssl_context()


class _PublicNetwork(httpcore.AsyncNetworkBackend):
    """Resolves a name, checks every address that it has, and connects to one of those: there is no second look-up that
    could answer otherwise. TLS and the Host header keep the name."""

    def __init__(self, network: httpcore.AsyncNetworkBackend, resolve: Resolver) -> None:
        self._network, self._resolve = network, resolve

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        try:
            with anyio.fail_after(timeout):
                addresses = await self._checked(host, port)
                share = None if timeout is None else timeout / len(addresses)
                for address in addresses:
                    try:
                        return await self._network.connect_tcp(address, port, share, local_address, socket_options)
                    except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                        failure = error
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"{host} took too long") from None
        raise failure

    async def _checked(self, host: str, port: int) -> list[str]:
        literal = _public_literal(host)
        addresses = [literal] if literal else await self._resolve(host, port)
        for address in addresses:
            if not is_public(address):
                raise ForbiddenAddress(f"{host} is not a public address")
        return addresses


async def _look_up(host: str, port: int) -> list[str]:
    """The system's resolver, in a thread of its own: a name that takes long to resolve holds up nobody else."""

    def ask() -> list[str]:
        return [str(address[0]) for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]

    try:
        return await to_thread.run_sync(ask, abandon_on_cancel=True, limiter=CapacityLimiter(1))
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(str(error)) from error


def _public_literal(host: str) -> str | None:
    """The address that the host is written as, if it is. `127.1`, `0x7f.1`, `2130706433`, which resolvers read as
    addresses too, are refused altogether."""
    try:
        address = str(ip_address(host))
    except ValueError:
        if _ENDS_IN_NUMBER.fullmatch(host):
            raise ForbiddenAddress("must write an IPv4 address as four decimal numbers") from None
        return None
    if not is_public(address):
        raise ForbiddenAddress("must be a public address")
    return address
