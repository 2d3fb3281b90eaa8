"""A model hub on this machine: the few addresses of the real one that a download asks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """Serves `folder` as the model `model` at `commit`, which is also its branch main. `refusal`: status and error code
    of every answer instead. `cut`: connections that break in the middle of a file of more than `cut_from` bytes."""

    folder: Path
    model: str
    commit: str = COMMIT
    refusal: tuple[int, str] | None = None
    cut: int = 0
    cut_from: int = 100_000
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, file and range of everything that was asked for below `resolve`."""

    @property
    def fetched(self) -> list[str]:
        return [file for method, file, _ in self.asked if method == "GET"]

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The address that HF_ENDPOINT would name."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: FakeHub, *arguments: object) -> None:
        self.hub = hub
        super().__init__(*arguments)  # type: ignore[arg-type]

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        if hub.refusal is not None:
            status, code = hub.refusal
            self._answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})
        elif path in (
            f"/api/models/{hub.model}",
            *(f"/api/models/{hub.model}/revision/{r}" for r in ("main", hub.commit)),
        ):
            self._json({"id": hub.model, "sha": hub.commit, "siblings": []})
        elif path == f"/api/models/{hub.model}/tree/{hub.commit}":
            self._json([self._entry(file) for file in sorted(hub.folder.rglob("*")) if file.is_file()])
        elif path.startswith(prefix := f"/{hub.model}/resolve/{hub.commit}/"):
            self._file(path.removeprefix(prefix))
        else:
            known = path.startswith(f"/api/models/{hub.model}/")
            code = "RevisionNotFound" if known else "RepoNotFound"
            self._answer(404, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _entry(self, file: Path) -> dict[str, object]:
        name = file.relative_to(self.hub.folder).as_posix()
        return {"type": "file", "path": name, "size": file.stat().st_size, "oid": _etag(file)}

    def _file(self, name: str) -> None:
        asked = self.headers.get("Range")
        self.hub.asked.append((self.command, name, asked))
        file = self.hub.folder / name
        data = file.read_bytes()
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        headers = {"ETag": f'"{_etag(file)}"', "X-Repo-Commit": self.hub.commit, "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        breaks = self.command == "GET" and self.hub.cut > 0 and len(data) > self.hub.cut_from
        self.hub.cut -= breaks
        self._answer(206 if start else 200, data[start:], headers, sent=len(data) // 2 if breaks else None)

    def _json(self, content: object) -> None:
        self._answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str], sent: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:sent])
        if sent is not None:
            self.close_connection = True


def _etag(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
