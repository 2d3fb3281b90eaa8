"""What `pip install` of the wheel gives, outside the checkout: the command with the demo model, and the service."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import FEW, SCENE, environment
from tests.support import ROOT, wait_until

QUIET = ("-q", "--disable-pip-version-check", "--no-deps", "--no-index")


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", *arguments], cwd=ROOT, check=True, timeout=120)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel in it. What the wheel needs is found where this Python has it, in a way that
    does not lead to the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", *QUIET, "--no-build-isolation", "-w", str(folder), str(ROOT))
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", symlinks=True)
    pip("--python", str(folder / "venv" / "bin" / "python"), "install", *QUIET, str(wheel))
    (packages(folder / "venv") / "needed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "venv"


def packages(environment_folder: Path) -> Path:
    (found,) = environment_folder.glob("lib/python*/site-packages")
    return found


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    return environment(PYTHONPATH="", FOI_DATA_DIR=str(tmp_path / "data"))


def test_everything_that_is_not_python_is_there(fresh: Path) -> None:
    for package in ("demo/model", "demo/samples", "service/playground"):
        files = [path.relative_to(ROOT) for path in (ROOT / package).rglob("*") if path.is_file()]
        assert files
        assert [str(file) for file in files if not (packages(fresh) / file).is_file()] == []
    assert (packages(fresh) / "foi_client" / "py.typed").is_file()


def test_an_edit_is_made_with_the_demo_model(fresh: Path, variables: dict[str, str], tmp_path: Path) -> None:
    command = [str(fresh / "bin" / "foi"), "edit", str(SCENE), "-i", "make the ball blue", *FEW, "-o", "r.png"]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert np.asarray(Image.open(tmp_path / "r.png")).shape == np.asarray(Image.open(SCENE)).shape


def test_the_service_is_ready_serves_its_page_and_stops(fresh: Path, variables: dict[str, str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    log = tmp_path / "log"
    with log.open("w") as output:
        command = [str(fresh / "bin" / "foi"), "serve", "--port", str(port)]
        process = subprocess.Popen(command, cwd=tmp_path, env=variables, stdout=output, stderr=subprocess.STDOUT)

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"{address}/readyz", timeout=5).is_success
        except httpx.TransportError:
            return False

    try:
        wait_until(is_ready, 120)
        page = httpx.get(f"{address}/")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
    assert page.is_success
    assert "text/html" in page.headers["content-type"]
