"""The HTTP server: uvicorn, which lets those who wait go as soon as it is told to end."""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI

from service.events import EventHub

GRACE_S = 5
"""After SIGTERM, for uploads and downloads that have begun; whoever only waits is answered at once."""


class Server(uvicorn.Server):
    """`options` are those of `uvicorn.Config`."""

    def __init__(self, app: FastAPI, **options: object) -> None:
        common = {"log_config": None, "ws": "none", "server_header": False, "timeout_graceful_shutdown": GRACE_S}
        super().__init__(uvicorn.Config(app, **common, **options))  # type: ignore[arg-type]
        self._events: EventHub = app.state.events

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn itself would wait for them, cancel them after its grace, and answer 500."""
        self._events.end_all()
        await super().shutdown(sockets)
