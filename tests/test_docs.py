"""The examples of docs/api.md are run, top to bottom, against the real service with the demo model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.showcase import running_service
from tests.support import ROOT

ADDRESS = "http://127.0.0.1:8000"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("docs")
    with running_service(folder) as url:
        yield url, folder


def blocks(kind: str, url: str) -> str:
    text = (ROOT / "docs" / "api.md").read_text()
    found = "\n".join(code for language, code in BLOCK.findall(text) if language == kind)
    return found.replace(ADDRESS, url).replace(".venv/bin/python", sys.executable)


@pytest.mark.parametrize("kind", ["sh", "python"])
def test_every_example_of_the_api_runs(kind: str, service: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = service
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    code = blocks(kind, url)
    command = ["bash", "-euo", "pipefail", "-c", code] if kind == "sh" else [sys.executable, "-c", code]
    environment = {**os.environ, "FOI_DATA_DIR": str(folder / "data"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"status":5' not in done.stdout + done.stderr
    assert not re.search(r'"type":\s*"/problems/', done.stdout), done.stdout
