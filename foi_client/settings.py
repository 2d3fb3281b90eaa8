"""Where the service is, and how patient a client is with it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from foi_client.patience import Patience

DEFAULT_SERVER = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Connection:
    """What both clients are made with."""

    base_url: str
    headers: dict[str, str]
    timeout_s: float
    retry_for_s: float

    @classmethod
    def of(cls, base_url: str | None, api_key: str | None, timeout_s: float, retry_for_s: float) -> Connection:
        """What is None comes from FOI_SERVER and FOI_API_KEY. Raises ValueError."""
        server = (base_url or os.environ.get("FOI_SERVER", "").strip() or DEFAULT_SERVER).rstrip("/")
        if not server.startswith(("http://", "https://")):
            raise ValueError(f"{server!r} is no address of a service; it begins with http:// or https://")
        key = api_key or os.environ.get("FOI_API_KEY", "").strip()
        headers = {"User-Agent": "foi-client"} | ({"Authorization": f"Bearer {key}"} if key else {})
        return cls(server, headers, timeout_s, retry_for_s)

    def patience(self, limit_s: float | None = None) -> Patience:
        return Patience(self.timeout_s, self.retry_for_s, limit_s)
