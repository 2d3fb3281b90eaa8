"""The blocks of docs/cli.md are run, top to bottom, with the real service and the demo model."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.showcase import running_service
from tests.cli.conftest import environment, results_of
from tests.support import ROOT

BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("docs")
    with running_service(folder) as url:
        yield url, folder


def test_every_example_of_the_command_line_runs(service: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = service
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    code = "\n".join(BLOCK.findall((ROOT / "docs" / "cli.md").read_text())).replace("http://127.0.0.1:8000", url)
    code = f'foi() {{ {sys.executable} -m foi_cli "$@"; }}\n{code}'
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", code],
        cwd=tmp_path,
        env=environment(FOI_DATA_DIR=str(folder / "data")),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 edited, 2 done before, 0 failed" in done.stdout
    assert set(results_of(tmp_path / "edited")) == {"blue", "two"}
    assert (tmp_path / "out" / "calibration" / "calibration.png").is_file()
    assert '"threshold": 0.35' in (tmp_path / "out" / "calibration" / "foi.json").read_text()
    made = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert made == {"result.png", "red.webp", "several.png", "piped.png", "edits.jsonl", "openapi.yaml"}
