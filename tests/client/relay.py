"""What stands between a client and the service, and goes wrong when a test says so: a real TCP server."""

from __future__ import annotations

import re
import socket
import socketserver
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Thread

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """Instead of the service's; the service hears nothing."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    def __bytes__(self) -> bytes:
        headers = {"Content-Length": str(len(self.body)), "Connection": "close", **self.headers}
        lines = [f"HTTP/1.1 {self.status} Reason", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


@dataclass(frozen=True)
class Cut:
    """The service answers, and the connection breaks after so many bytes of that."""

    after: int = 0


@dataclass(frozen=True)
class Change:
    """In the answer's bytes."""

    old: bytes
    new: bytes


Fault = Answer | Cut | Change


class Relay(socketserver.ThreadingTCPServer):
    """Each request meets the next of the `faults`, if there are any; without a `target` connections break at once.
    `requests` are the first lines of those that came, `open` the connections that there are now."""

    daemon_threads = False

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target: str | None = target
        self.faults: deque[Fault] = deque()
        self.requests: list[str] = []
        self.heads: list[str] = []
        self.open: set[socket.socket] = set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def cut_all(self) -> None:
        for connection in list(self.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(socketserver.BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        self.server.open.add(self.request)
        try:
            while (request := self._read_request()) and self._answer(request):
                pass
        except OSError:
            pass  # one of the two sides has left
        finally:
            self.server.open.discard(self.request)

    def _read_request(self) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := self.request.recv(65536)):
                return b""
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        while len(body) < (int(length[1]) if length else 0):
            if not (more := self.request.recv(65536)):
                return b""
            body += more
        self.server.heads.append(head.decode())
        self.server.requests.append(head.partition(b" HTTP/")[0].decode())
        return head + b"\r\nConnection: close\r\n\r\n" + body

    def _answer(self, request: bytes) -> bool:
        fault = self.server.faults.popleft() if self.server.faults else None
        if isinstance(fault, Answer):
            self.request.sendall(bytes(fault))
            return False
        if self.server.target is None:
            return False
        host, _, port = self.server.target.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as upstream:
            upstream.sendall(request)
            watch = Thread(target=self._leave_together, args=(upstream,))
            watch.start()
            self._pass_on(upstream, fault)
            with suppress(OSError):
                self.request.shutdown(socket.SHUT_RDWR)
            watch.join()
        return False

    def _leave_together(self, upstream: socket.socket) -> None:
        """The service hears it when the client leaves: there is one request on each connection."""
        with suppress(OSError):
            self.request.recv(1)
            upstream.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, upstream: socket.socket, fault: Fault | None) -> None:
        left = fault.after if isinstance(fault, Cut) else None
        while chunk := upstream.recv(65536):
            if isinstance(fault, Change):
                chunk = chunk.replace(fault.old, fault.new)
            self.request.sendall(chunk[:left])
            if left is not None and (left := left - len(chunk)) <= 0:
                return


@contextmanager
def relaying(target: str) -> Iterator[Relay]:
    with Relay(target) as relay:
        thread = Thread(target=relay.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield relay
        finally:
            relay.shutdown()
            thread.join()
            relay.cut_all()
