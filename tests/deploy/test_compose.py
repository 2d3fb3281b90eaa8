"""docker-compose.yml: by its schema, and what it promises of safety and of an orderly end."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.settings import Settings
from tests.support import ROOT
from worker.crew import HAND_BACK_S
from worker.webhooks import FINISH_S

OURS = ("api", "worker", "webhooks")
Read = Callable[[str], list[Any]]


@pytest.fixture
def compose(read: Read) -> Any:
    (document,) = read("docker-compose.yml")
    return document


@pytest.mark.parametrize("name", ["docker-compose.yml", "docker-compose.gpu.yml"])
def test_the_file_is_what_the_compose_specification_allows(name: str) -> None:
    checker = str(Path(sys.executable).parent / "check-jsonschema")
    command = [checker, "--builtin-schema", "vendor.compose-spec", str(ROOT / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", OURS)
def test_our_containers_have_no_rights_that_they_do_not_need(compose: Any, name: str) -> None:
    service = compose["services"][name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["restart"] == "unless-stopped"


def test_ports_are_open_on_this_machine_alone_and_keys_are_on(compose: Any) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert compose["services"]["api"]["environment"]["FOI_AUTH"] == "${FOI_AUTH:-keys}"


def test_only_our_containers_reach_redis(compose: Any) -> None:
    reach = {name for name, service in compose["services"].items() if "redis" in service.get("networks", [])}
    assert reach == {*OURS, "redis"}
    assert compose["services"]["redis"]["networks"] == ["redis"]
    assert compose["networks"]["redis"]["internal"]


def test_redis_keeps_its_log_and_never_drops_a_key(compose: Any) -> None:
    command = " ".join(compose["services"]["redis"]["command"])
    assert "--appendonly yes --appendfsync everysec" in command
    assert "--maxmemory-policy noeviction" in command


def test_a_worker_gets_the_time_that_it_needs_to_end(compose: Any) -> None:
    worker = compose["services"]["worker"]
    drain_s = int(worker["environment"]["FOI_DRAIN_S"])
    assert drain_s == Settings().drain_s
    assert _seconds(worker["stop_grace_period"]) > drain_s + HAND_BACK_S
    assert _seconds(compose["services"]["webhooks"]["stop_grace_period"]) > FINISH_S


def test_what_only_some_want_starts_only_where_it_is_asked_for(compose: Any) -> None:
    optional = {name: service["profiles"] for name, service in compose["services"].items() if "profiles" in service}
    assert optional == {
        "s3": ["s3"],
        "s3-bucket": ["s3"],
        "prometheus": ["monitoring"],
        "grafana": ["monitoring"],
    }


def test_every_setting_that_is_named_is_one_of_the_services(compose: Any, read: Read) -> None:
    (gpu,) = read("docker-compose.gpu.yml")
    environments = [service.get("environment", {}) for file in (compose, gpu) for service in file["services"].values()]
    named = {name for environment in environments for name in environment if name.startswith("FOI_")}
    assert named <= {f"FOI_{name.upper()}" for name in Settings.model_fields}


def test_files_that_are_mounted_are_there(compose: Any) -> None:
    mounts = [str(volume) for service in compose["services"].values() for volume in service.get("volumes", [])]
    files = [mount.split(":")[0] for mount in mounts if mount.startswith("./")]
    assert files
    assert all((ROOT / name).is_file() for name in files)


def test_no_secret_is_written_down(compose: Any) -> None:
    environments = [service.get("environment", {}) for service in compose["services"].values()]
    secrets = [
        value
        for environment in environments
        for name, value in environment.items()
        if re.search("KEY|PASSWORD|SECRET|TOKEN", name)
    ]
    assert secrets
    assert all(value is None or re.fullmatch(r"\$\{\w+:-\}", value) for value in secrets)
    assert "AWS_SECRET_ACCESS_KEY=" not in (ROOT / "deploy" / "s3.env").read_text()


def _seconds(text: str) -> int:
    return int(text.removesuffix("s"))
