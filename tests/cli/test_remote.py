"""Edits by a real service; a worker without a model makes them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis import Redis

from jobs.keys import ApiKeys
from jobs.repository import EditRepository
from jobs.settings import Settings
from tests.cli.conftest import SCENE, Foi, Here, Start, environment, one_line
from tests.client.conftest import Editing
from tests.service.conftest import serving
from tests.support import FakeEngine, wait_until


def statuses(redis: Redis, repository: EditRepository) -> list[str]:
    records = [repository.get(key.removeprefix("foi:edit:")) for key in redis.keys("foi:edit:*")]
    return [record.status for record in records if record is not None]


def test_the_result_and_the_masks_of_a_service_are_files_here(
    foi: Foi, address: str, editing: Editing, tmp_path: Path
) -> None:
    with editing():
        done = foi("edit", str(SCENE), "-i", "make the ball blue", "-o", "r.png", "--masks", "m", "--server", address)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().split() == ["r.png", "m/mask-1.png"]
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == ["mask-1.png", "r.png"]


def test_the_service_is_found_by_the_environment_too(foi: Foi, address: str, editing: Editing) -> None:
    with editing():
        done = foi("masks", str(SCENE), "-i", "make the ball blue", "--json", FOI_SERVER=address)
    assert [mask["path"] for mask in json.loads(done.stdout)["masks"]] == ["masks/mask-1.png"]


def test_an_edit_that_fails_is_status_1(foi: Foi, address: str, editing: Editing) -> None:
    def breaks() -> None:
        raise ValueError("broken")

    with editing(FakeEngine(breaks)):
        done = foi("edit", str(SCENE), "-i", "make the ball blue", "--json", "--server", address)
    assert done.returncode == 1
    assert "ValueError" in json.loads(done.stdout)["error"]["detail"]
    assert "ValueError" in one_line(done.stderr)


def test_what_the_service_refuses_is_status_2(here: Here, address: str) -> None:
    done = here("edit", str(SCENE), "-i", "make the ball blue", "--keyword", "hat", "--server", address)
    assert done.exit_code == 2
    assert "a word of 'make the ball blue'" in one_line(done.stderr)


def test_a_service_that_is_not_there_is_told_at_once(here: Here) -> None:
    done = here("edit", str(SCENE), "-i", "make the ball blue", "--server", "http://127.0.0.1:1")
    assert done.exit_code == 3
    assert "foi serve" in one_line(done.stderr)


def test_a_service_with_keys_wants_one(
    here: Here, client_settings: Settings, redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(client_settings.model_copy(update={"auth": "keys"}), redis_url) as address:
        done = here("info", "--server", address)
        assert done.exit_code == 3
        assert "FOI_API_KEY" in one_line(done.stderr)
        monkeypatch.setenv("FOI_API_KEY", ApiKeys(redis).create("me")[0])
        done = here("info", "--server", address, "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["limits"]["outputs"] == client_settings.max_outputs


def test_info_of_a_service_is_a_line_for_each_fact(here: Here, address: str) -> None:
    lines = dict(
        line.split(maxsplit=1) for line in here("info", "--server", address).stdout.splitlines() if " " in line
    )
    assert lines["limits.per_key.edits"] == "50"
    assert lines["methods"] == "foi, ip2p"


@pytest.mark.parametrize("running", [False, True], ids=["queued", "running"])
def test_ctrl_c_cancels_the_edit_of_the_service(
    start: Start, address: str, editing: Editing, redis: Redis, repository: EditRepository, running: bool
) -> None:
    process = start("edit", str(SCENE), "-i", "make the ball blue", "--server", address)

    def is_under_way() -> bool:
        return statuses(redis, repository) == ["running" if running else "queued"]

    if running:
        with editing(FakeEngine(lambda: time.sleep(0.02), steps=10_000)):
            wait_until(is_under_way)
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=30)
    else:
        wait_until(is_under_way)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "canceled" in one_line(error)
    assert statuses(redis, repository) == ["canceled"]


def test_an_installation_for_a_service_alone_needs_neither_torch_nor_the_service(address: str) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'pydantic_settings', 'fastapi', 'redis']))\n"
        "from foi_cli.main import app; app(sys.argv[1:], prog_name='foi')"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)

    there = run("edit", str(SCENE), "-i", "make the ball blue", "--keyword", "hat", "--server", address)
    assert (there.returncode, "a word of" in one_line(there.stderr)) == (2, True), "as the service says"
    alone = run("edit", str(SCENE), "-i", "make the ball blue")
    assert alone.returncode == 3
    assert "pip install" in one_line(alone.stderr)
