"""Each part is looked at for real where this machine has it, and what is wrong comes with its fix."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from redis import Redis

from foi_cli import checks
from foi_cli.info import without_password
from jobs.settings import Settings
from tests.cli.conftest import Foi


def test_a_machine_that_has_everything_is_status_0_and_stays_as_it_was(foi: Foi, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    done = foi("doctor", "--json", FOI_PORT=str(port), FOI_DEVICE="cpu")
    findings = {one["part"]: one for one in json.loads(done.stdout)["findings"]}
    assert list(findings) == ["packages", "access", "device", "redis", "store", "disk", "port", "model"]
    assert {name for name, one in findings.items() if one["state"] == "fail"} == set(), findings
    assert done.returncode == 0
    assert "demo is loaded on cpu" in findings["model"]["found"]
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_status_1_with_the_fix_in_a_table(foi: Foi, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    done = foi("doctor", FOI_HOST="0.0.0.0", FOI_MODEL="model", FOI_REDIS_URL="redis://:secret@127.0.0.1:1")
    shown = done.stdout.decode()
    assert done.returncode == 1
    assert shown.count("fail") == 3
    assert "FOI_AUTH=keys" in shown
    assert "secret" not in shown


def test_a_model_that_is_not_downloaded_yet_is_a_warning(foi: Foi, tmp_path: Path) -> None:
    variables = {"FOI_MODEL": "timbrooks/instruct-pix2pix", "HF_HOME": str(tmp_path / "hub"), "FOI_DEVICE": "cpu"}
    done = foi("doctor", "--json", **variables)
    model = json.loads(done.stdout)["findings"][-1]
    assert (model["part"], model["state"]) == ("model", "warn")
    assert "first start downloads it" in model["fix"]


def test_settings_that_cannot_be_read_are_the_finding(foi: Foi) -> None:
    done = foi("doctor", "--json", FOI_DEVICE="cpu", FOI_DTYPE="float8")
    assert done.returncode == 1
    assert "FOI_DTYPE=float8" in json.loads(done.stdout)["findings"][-1]["found"]


def test_packages_that_are_not_installed_are_named_with_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "NEEDED", {"no_such_package": "worker", "rq": "service"})
    (finding,) = checks.examine()
    assert (finding.state, finding.fix) == ("fail", "pip install 'focus-on-your-instruction[worker]'")


@pytest.mark.parametrize(
    ("gpu", "cuda_build", "usable", "device", "state", "says"),
    [
        (True, "13.0", True, "auto", "ok", "for CUDA 13.0"),
        (True, None, False, "auto", "warn", "install torch for your CUDA version"),
        (True, None, False, "cuda", "fail", "install torch for your CUDA version"),
        (True, "13.0", False, "auto", "warn", "driver"),
        (False, "13.0", False, "auto", "warn", "nothing, if the CPU is enough"),
        (False, None, False, "auto", "ok", "CPU"),
        (False, None, False, "cuda:1", "fail", "FOI_DEVICE=cpu"),
    ],
)
def test_gpu_and_build_of_torch_are_seen_together(
    monkeypatch: pytest.MonkeyPatch,
    gpu: bool,
    cuda_build: str | None,
    usable: bool,
    device: str,
    state: str,
    says: str,
) -> None:
    monkeypatch.setattr(checks, "gpu_is_here", lambda: gpu)
    monkeypatch.setattr(torch.version, "cuda", cuda_build)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(usable))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    finding = checks.look_at_device(Settings(device=device))
    assert finding.state == state
    assert says in finding.found + finding.fix


def test_redis_is_asked_for_its_version(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(redis_url=redis_url)
    assert checks.look_at_redis(settings).state == "ok"
    monkeypatch.setattr("jobs.redis_server.MIN_VERSION", (99, 0))
    finding = checks.look_at_redis(settings)
    assert (finding.state, finding.fix) == ("fail", "use Redis or Valkey 99.0 or later")


def test_a_redis_that_evicts_is_a_warning(redis_url: str, redis: Redis) -> None:
    redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        finding = checks.look_at_redis(Settings(redis_url=redis_url))
    finally:
        redis.config_set("maxmemory-policy", "noeviction")
    assert finding.state == "warn"
    assert "noeviction" in finding.fix


def test_without_any_redis_it_is_said_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.redis_server.shutil.which", lambda _: None)
    monkeypatch.setattr("jobs.redis_server.importlib.util.find_spec", lambda _: None)
    finding = checks.look_at_redis(Settings(redis_url=None))
    assert finding.state == "fail"
    assert "install redis-server" in finding.fix


def test_a_store_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finding = checks.look_at_store(Settings(data_dir=tmp_path / "file" / "data"))
    assert finding.state == "fail"
    assert "FOI_DATA_DIR" in finding.fix


def test_a_wrong_address_of_a_store_fails() -> None:
    finding = checks.look_at_store(Settings(store="ftp://somewhere"))
    assert finding.state == "fail"
    assert "s3://bucket" in finding.found


@pytest.mark.parametrize(("free", "state"), [(100 * 2**30, "ok"), (2**30, "warn"), (2**20, "fail")])
def test_little_room_is_told_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, state: str) -> None:
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free}))
    assert checks.look_at_disk(tmp_path / "data").state == state


def test_a_port_that_another_program_has_fails_and_one_of_the_service_does_not(address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        finding = checks.look_at_port("127.0.0.1", other.getsockname()[1])
    assert finding.state == "fail"
    assert "FOI_PORT" in finding.fix
    port = urlsplit(address).port
    assert port is not None
    ours = checks.look_at_port("127.0.0.1", port)
    assert (ours.state, "runs" in ours.found) == ("ok", True)
    assert checks.look_at_port("192.0.2.1", 80).state == "fail"


def test_passwords_are_not_shown() -> None:
    assert without_password("redis://user:secret@host:6379/1") == "redis://***@host:6379/1"
    assert without_password("unix:///run/redis.sock") == "unix:///run/redis.sock"
    assert without_password(None) is None
