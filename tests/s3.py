"""A real S3-speaking server, that can die and come back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import httpx
import pytest
from moto.server import ThreadedMotoServer


class S3:
    """`url` names a bucket of its own and a folder in it. What is stored outlives `stop()`."""

    def __init__(self) -> None:
        self._port = 0
        self.start()
        self.bucket = f"bucket-{uuid4().hex}"
        self.url = f"s3://{self.bucket}/edits"
        httpx.put(f"{self.endpoint}/{self.bucket}").raise_for_status()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", self._port, verbose=False)
        self._server.start()
        self._port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        self._server.stop()

    def stored(self) -> list[str]:
        """The key of everything in the bucket."""
        return re.findall("<Key>([^<]*)</Key>", httpx.get(f"{self.endpoint}/{self.bucket}?list-type=2").text)


@contextmanager
def running_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """With the variables by which an operator names it."""
    server = S3()
    for name, value in {
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    yield server
    server.stop()
