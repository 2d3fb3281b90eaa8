"""`foi info`: what is installed and set here, or what a service says of itself."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from foi_cli import options
from foi_cli.configuration import read_settings
from foi_cli.console import write_json
from foi_cli.errors import needing
from foi_cli.remote import service_info

PACKAGE = "focus-on-your-instruction"


def info(server: options.Server = None, as_json: options.Json = False) -> None:
    """Show versions, device, model and settings; with --server those of the service."""
    found = _here() if server is None else service_info(server).raw
    if as_json:
        write_json(found)
        return
    rows = list(_rows(found))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}}  {value}".rstrip())


def version() -> str:
    return importlib.metadata.version(PACKAGE)


def without_password(url: str | None) -> str | None:
    """An address that may be shown."""
    if url is None or "@" not in url:
        return url
    parts = urlsplit(url)
    return parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2]).geturl()


def _here() -> Mapping[str, Any]:
    settings = read_settings()
    with needing("service,worker"):
        import torch
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "version": version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "gpus": gpus,
        "settings": {
            **settings.model_dump(mode="json"),
            "redis_url": without_password(settings.redis_url),
        },
    }


def _rows(found: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`limits.pixels`, 40000000."""
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield prefix + name, ", ".join(map(str, value)) or "none"
        else:
            yield prefix + name, "" if value is None else value
