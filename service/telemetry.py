"""OpenTelemetry of the HTTP service: FastAPI's own, switched on or off by one setting."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import MutableMapping
from typing import Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace

from jobs.settings import Settings

_ENDPOINTS = tuple(f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT" for signal in ("", "TRACES_", "METRICS_"))
_UNTRACED = frozenset({"/livez", "/readyz", "/metrics"})


class TelemetryUnavailableError(Exception):
    """Telemetry was asked for and would go nowhere; the message is for the operator."""


def config(settings: Settings) -> TelemetryConfig:
    """What FastAPI gets. Off means off: by itself it would use whatever provider the process has. Raises
    TelemetryUnavailableError."""
    if not settings.telemetry:
        return {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # nobody has set one up: FastAPI is to
        _check()
    return {"logs": False, "auto_configure": True, "exclude": _is_untraced}


def _check() -> None:
    """FastAPI itself says nothing, or only warns, and goes on without."""
    try:
        installed = importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        installed = False
    if not installed:
        raise TelemetryUnavailableError("FOI_TELEMETRY needs a package: pip install 'fastapi[opentelemetry]'")
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        raise TelemetryUnavailableError(
            "FOI_TELEMETRY needs to know where to send: set OTEL_EXPORTER_OTLP_ENDPOINT, e.g. http://localhost:4318"
        )


def _is_untraced(scope: MutableMapping[str, Any]) -> bool:
    """Probes, and event streams that are opened with a token: a span would keep their address, with the token."""
    return scope["path"] in _UNTRACED or b"token=" in scope.get("query_string", b"")
