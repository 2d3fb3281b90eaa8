"""The command as a process, and in this one; a service without a model for `--server`."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner, Result

from foi_cli.main import app
from tests.client.conftest import address, client_settings, editing, run, service, stored_files
from tests.support import ROOT

__all__ = ["address", "client_settings", "editing", "run", "service", "stored_files"]

SCENE = ROOT / "demo" / "samples" / "scene.png"
FEW = ("--steps", "4", "--seed", "7")
FOREIGN = ("REDIS_URL", "FOI_SERVER", "FOI_API_KEY", "PYTHONSAFEPATH")
Foi = Callable[..., "subprocess.CompletedProcess[bytes]"]
Start = Callable[..., "subprocess.Popen[bytes]"]
Here = Callable[..., Result]


def environment(**changes: str) -> dict[str, str]:
    """Without what the developer has set for their own service."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("FOI_") and name not in FOREIGN}
    return {**own, "PYTHONPATH": str(ROOT), **changes}


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """The command sets up logging for its whole process, which here is the tests' own."""
    root, hub = logging.getLogger(), logging.getLogger("foi_core.hub")
    handlers, levels, hooks = root.handlers[:], (root.level, hub.level), (sys.excepthook, threading.excepthook)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    hub.setLevel(levels[1])
    logging.captureWarnings(False)
    structlog.reset_defaults()
    sys.excepthook, threading.excepthook = hooks


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts `foi` in an empty folder, with pipes."""

    def begin(*arguments: str, **variables: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "foi_cli", *arguments],
            cwd=tmp_path,
            env=environment(**variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return begin


@pytest.fixture
def foi(start: Start) -> Foi:
    """Runs `foi` to its end."""

    def to_end(*arguments: str, stdin: bytes = b"", **variables: str) -> subprocess.CompletedProcess[bytes]:
        process = start(*arguments, **variables)
        out, error = process.communicate(stdin, timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, error)

    return to_end


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    """Runs `foi` in this process, in an empty folder: torch need not be loaded anew."""
    monkeypatch.chdir(tmp_path)
    for name in ("FOI_SERVER", "FOI_API_KEY", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)

    def invoke(*arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(app, [*arguments], prog_name="foi", **options)

    return invoke


def one_line(stderr: bytes | str) -> str:
    """The only line there, which is the command's own."""
    text = stderr if isinstance(stderr, str) else stderr.decode()
    (line,) = text.splitlines()
    assert line.startswith("foi: ")
    return line


def lines_file(folder: Path, *edits: dict[str, Any] | str) -> Path:
    file = folder / "edits.jsonl"
    file.write_text("".join((edit if isinstance(edit, str) else json.dumps(edit)) + "\n" for edit in edits))
    return file


def results_of(folder: Path) -> dict[str, dict[str, Any]]:
    """What results.jsonl tells, by id; each is there once."""
    records = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    found = {record["id"]: record for record in records}
    assert len(found) == len(records)
    return found
