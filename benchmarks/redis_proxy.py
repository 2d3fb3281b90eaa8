"""A TCP proxy in front of a real Redis that cuts every connection at a chosen round trip."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread
from typing import Literal

When = Literal["before", "after"]
CHUNK = 1 << 20


class RedisProxy:
    """Listens on a port of its own and forwards to the Redis at a Unix socket.

    `arm` chooses one request of those that come from then on, counted over all connections. There all connections are
    cut, and new ones are closed at once until `heal`: "before" Redis gets the request, or "after" it has answered and
    before the client gets the answer. What a client sends at once (a pipeline) is one request.
    """

    def __init__(self, redis: Path) -> None:
        self._redis = redis
        self._lock = Lock()
        self._links: set[_Link] = set()
        self._left, self._marker = 0, b""
        self._when: When = "before"
        self._marked: _Link | None = None
        self._then: Callable[[], None] = lambda: None
        self.down = False
        """Whether the cut has been made, and nobody gets through."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        Thread(target=self._accept, name="redis-proxy", daemon=True).start()

    def arm(self, request: int, when: When, then: Callable[[], None] = lambda: None, marker: bytes = b"") -> None:
        """Cuts at the `request`-th request (1: the next). With a `marker` it is counted from the first request that has
        it, on that request's connection alone. `then` is called at the cut."""
        with self._lock:
            self._left, self._when, self._then = request, when, then
            self._marker, self._marked = marker, None

    def heal(self) -> None:
        """Lets everybody through again."""
        with self._lock:
            self._left, self.down = 0, False

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Now."""
        with self._lock:
            self.down = True
            links, self._links = self._links, set()
        for link in links:
            link.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                if self.down:
                    client.close()
                    continue
                server = socket.socket(socket.AF_UNIX)
                try:
                    server.connect(str(self._redis))
                except OSError:
                    client.close()
                    server.close()
                    continue
                link = _Link(self, client, server)
                with self._lock:
                    self._links.add(link)
                link.start()

    def is_chosen(self, link: _Link, request: bytes) -> When | None:
        """Whether the cut is to be made at this request, and on which side of it."""
        with self._lock:
            if self._marker and self._marked is None and self._left and self._marker in request:
                self._marked = link
            if not self._left or (self._marker and self._marked is not link):
                return None
            self._left -= 1
            return None if self._left else self._when

    def make_cut(self) -> None:
        self.down = True
        self._then()
        self.cut()

    def forget(self, link: _Link) -> None:
        with self._lock:
            self._links.discard(link)


class _Link:
    """One client's connection, with a thread for each direction."""

    def __init__(self, proxy: RedisProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._swallows = False

    def start(self) -> None:
        for pump in (self._requests, self._answers):
            Thread(target=pump, name="redis-proxy-link", daemon=True).start()

    def close(self) -> None:
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _requests(self) -> None:
        with suppress(OSError):
            while request := self._client.recv(CHUNK):
                chosen = self._proxy.is_chosen(self, request)
                if chosen == "before":
                    self._proxy.make_cut()
                    return
                self._swallows = chosen == "after"
                self._server.sendall(request)
        self._end()

    def _answers(self) -> None:
        with suppress(OSError):
            while answer := self._server.recv(CHUNK):
                if self._swallows:
                    self._proxy.make_cut()
                    return
                self._client.sendall(answer)
        self._end()

    def _end(self) -> None:
        self._proxy.forget(self)
        self.close()
