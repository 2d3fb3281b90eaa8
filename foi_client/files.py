"""Files of an edit: fetched whole, checked, and written so that a file that is there is a good one."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from foi_client.errors import DownloadError
from foi_client.flows import call, get
from foi_client.models import Edit, File
from foi_client.patience import Patience
from foi_client.steps import Flow, Request, Work

_SHA256 = re.compile(r'"([0-9a-f]{64})"')


@dataclass(frozen=True)
class Downloaded:
    """Where the files are, in the order of the edit's `outputs` and `masks`."""

    outputs: tuple[Path, ...]
    masks: tuple[Path, ...]


def fetch(file: File, patience: Patience) -> Flow[bytes]:
    """Raises DownloadError where the bytes are not those that the service has."""
    response = yield from call(Request("GET", file.path, follow=True), patience)
    content = response.content
    expected = file.sha256 or _told(response)
    found = yield Work(lambda: hashlib.sha256(content).hexdigest())
    if expected is not None and found != expected:
        raise DownloadError(f"{file.path} came with other bytes than the service has ({len(content)} bytes)")
    return content


def download(edit: Edit | str, folder: str | os.PathLike[str], patience: Patience) -> Flow[Downloaded]:
    """Into the folder, which is made; each file under its name there."""
    if isinstance(edit, str) or not edit.ended:
        edit = yield from get(edit, patience)
    edit.raise_for_status()
    paths: list[Path] = []
    for file in (*edit.outputs, *edit.masks):
        content = yield from fetch(file, patience)
        path = Path(folder, file.name)
        yield Work(partial(write, path, content))
        paths.append(path)
    count = len(edit.outputs)
    return Downloaded(tuple(paths[:count]), tuple(paths[count:]))


def write(path: Path, content: bytes) -> None:
    """All of it, or nothing; over what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _told(response: httpx.Response) -> str | None:
    """The service's ETag of a file is its SHA-256; an object store, to which it may redirect, has its own."""
    match = _SHA256.fullmatch(response.headers.get("etag", ""))
    return match[1] if match and not response.history else None
