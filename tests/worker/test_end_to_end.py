"""The whole service as `make serve` starts it, with a real (tiny, random) model: HTTP, queue, worker, engine, files."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.support import ROOT, encoded, picture, python, wait_until

START_S = 120


@dataclass
class Running:
    process: subprocess.Popen[str]
    client: httpx.Client
    log: Path
    environment: dict[str, str]

    def text(self) -> str:
        return self.log.read_text()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    from tests.tiny_model import build_tiny_model

    folder = tmp_path_factory.mktemp("e2e")
    port = free_port()
    environment = {
        "FOI_PORT": str(port),
        "FOI_DATA_DIR": str(folder / "data"),
        "FOI_MODEL": str(build_tiny_model(folder / "model")),
        "FOI_DEVICE": "cpu",
        "FOI_LOG_FORMAT": "json",
        "FOI_HANG_S": "8",
        "REDIS_URL": "",
    }
    log = folder / "log"
    with log.open("w") as output:
        process = python("-m", "worker.supervisor", environment=environment, stdout=output, stderr=subprocess.STDOUT)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=90) as client:
        running = Running(process, client, log, environment)
        try:
            wait_until(lambda: "Ready." in log.read_text() or process.poll() is not None, START_S)
            assert process.poll() is None, running.text()
            yield running
        finally:
            process.terminate()
            process.wait(30)


def edit(service: Running, wait: int = 60, path: str = "/v1/edits", **data: str) -> dict[str, Any]:
    form = {"instruction": "make the ball red", "num_inference_steps": "4", "seed": "1", **data}
    files = {"image": encoded(picture(96, 64))}
    answer = service.client.post(path, files=files, data=form, headers={"Prefer": f"wait={wait}"})
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


def fetch(service: Running, url: str) -> np.ndarray:
    answer = service.client.get(url)
    assert answer.status_code == 200
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def children(pid: int) -> list[int]:
    """Of all its threads."""
    return [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]


def descendants(pid: int) -> list[int]:
    """Redis is the child of whichever process started it last."""
    return [one for child in children(pid) for one in (child, *descendants(child))]


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def test_an_edit_comes_back_whole_with_nothing_changed_outside_its_masks(service: Running) -> None:
    done = edit(service, instruction="make the ball red and turn the sky orange")
    assert done["status"] == "succeeded", done["error"]
    assert len(done["masks"]) == len(done["input"]["instructions"]) == 2
    assert done["metrics"]["change_outside_mask"] == 0
    before = fetch(service, f"{done['urls']['self']}/files/input.png")
    after = fetch(service, done["outputs"][0]["url"])
    union = np.any([fetch(service, mask["url"]) > 0 for mask in done["masks"]], axis=0)
    assert before.shape == after.shape == (64, 96, 3)
    assert (before[~union] == after[~union]).all()
    assert abs(union.mean() - done["metrics"]["mask_area"]) < 1e-4


def test_the_same_seed_gives_the_same_bytes(service: Running) -> None:
    first, second = edit(service), edit(service)
    assert first["outputs"][0]["sha256"] == second["outputs"][0]["sha256"]


def test_the_printed_curl_line_works(service: Running, tmp_path: Path) -> None:
    line = next(line for line in service.text().splitlines() if "curl" in line)
    words = shlex.split(line.strip())
    assert words[-1].startswith(str(service.client.base_url))
    folder = ROOT if "image=@demo/samples/scene.png" in words else tmp_path
    if folder == tmp_path:  # an installation without the samples names a picture of one's own
        (tmp_path / "your-picture.png").write_bytes(encoded(picture()))
    words += ["-F", "num_inference_steps=2"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    assert '"status":"succeeded"' in done.stdout


def test_masks_seen_before_an_edit_are_its_masks_and_sent_back_they_give_the_same_picture(service: Running) -> None:
    look = edit(service, path="/v1/masks")
    assert (look["status"], look["outputs"]) == ("succeeded", [])
    found = edit(service)
    mask = service.client.get(look["masks"][0]["url"]).content
    assert mask == service.client.get(found["masks"][0]["url"]).content
    form = {
        "instructions": json.dumps([{"text": "make the ball red", "mask": "region"}]),
        "num_inference_steps": "4",
        "seed": "1",
    }
    files = {"image": encoded(picture(96, 64)), "region": mask}
    back = service.client.post("/v1/edits", files=files, data=form, headers={"Prefer": "wait=60"}).json()
    assert back["outputs"][0]["sha256"] == found["outputs"][0]["sha256"]


def test_edits_sent_together_are_the_same_as_alone(service: Running) -> None:
    seeds = [str(seed) for seed in range(6)]
    alone = [edit(service, seed=seed, num_inference_steps="10")["outputs"][0] for seed in seeds]
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda seed: edit(service, seed=seed, num_inference_steps="10"), seeds))
    for one, other in zip(alone, done, strict=True):
        before, after = fetch(service, one["url"]), fetch(service, other["outputs"][0]["url"])
        assert np.abs(before.astype(int) - after.astype(int)).max() <= 1


def test_several_outputs_are_those_of_their_seeds_alone_also_at_the_models_size(service: Running) -> None:
    done = edit(service, n="3", output_size="model", seed="4", num_inference_steps="10")
    assert done["status"] == "succeeded", done["error"]
    assert [(o["seed"], o["width"], o["height"]) for o in done["outputs"]] == [(s, 64, 64) for s in (4, 5, 6)]
    assert [mask["seed"] for mask in done["masks"]] == [4, 5, 6]
    assert done["metrics"]["change_outside_mask"] == 0
    assert len({output["sha256"] for output in done["outputs"]}) == 3
    alone = edit(service, output_size="model", seed="5", num_inference_steps="10")
    before, after = fetch(service, alone["outputs"][0]["url"]), fetch(service, done["outputs"][1]["url"])
    assert before.shape == (64, 64, 3)
    assert np.abs(before.astype(int) - after.astype(int)).max() <= 1


def test_a_running_edit_is_canceled_while_others_go_on(service: Running) -> None:
    long = edit(service, wait=0, num_inference_steps="150", strength="1")
    other = edit(service, wait=0, num_inference_steps="100", strength="1")
    wait_until(lambda: service.client.get(long["urls"]["self"]).json()["status"] == "running")
    assert service.client.post(long["urls"]["cancel"]).json()["status"] in ("canceling", "canceled")
    wait_until(lambda: service.client.get(long["urls"]["self"]).json()["status"] == "canceled")
    wait_until(lambda: service.client.get(other["urls"]["self"]).json()["status"] == "succeeded", START_S)


def test_a_frozen_worker_is_replaced_and_its_edit_is_completed(service: Running) -> None:
    (worker,) = [pid for pid in children(service.process.pid) if "-m worker " in command(pid)]
    slow = edit(service, wait=0, num_inference_steps="150", strength="1")
    wait_until(lambda: service.client.get(slow["urls"]["self"]).json()["status"] == "running")
    os.kill(worker, signal.SIGSTOP)
    wait_until(lambda: worker not in children(service.process.pid), START_S)
    wait_until(lambda: service.client.get(slow["urls"]["self"]).json()["status"] == "succeeded", START_S)


def test_a_killed_worker_is_replaced_and_its_edit_is_completed(service: Running) -> None:
    (worker,) = [pid for pid in children(service.process.pid) if "-m worker " in command(pid)]
    slow = edit(service, wait=0, num_inference_steps="150", strength="1")
    wait_until(lambda: service.client.get(slow["urls"]["self"]).json()["status"] == "running")
    os.kill(worker, signal.SIGKILL)

    def ended() -> dict[str, Any] | None:
        now: dict[str, Any] = service.client.get(slow["urls"]["self"]).json()
        return now if now["status"] in ("succeeded", "failed") else None

    done = wait_until(ended, START_S)
    assert done["status"] == "succeeded", done
    assert '"attempt": 2' in service.text()


def test_a_killed_redis_is_revived_and_remembers(service: Running) -> None:
    old = edit(service)
    (redis,) = [pid for pid in children(service.process.pid) if "redis-server" in command(pid)]
    folder = Path(service.environment["FOI_DATA_DIR"]) / "redis"
    written = (old["id"].encode(), b"succeeded")
    wait_until(lambda: any(all(w in f.read_bytes() for w in written) for f in folder.rglob("*.aof")))
    os.kill(redis, signal.SIGKILL)
    wait_until(lambda: redis not in children(service.process.pid))
    wait_until(lambda: service.client.get("/readyz").status_code == 200)
    assert service.client.get(old["urls"]["self"]).json() == old
    assert edit(service)["status"] == "succeeded"


def test_a_second_service_on_the_port_says_so_in_one_line(service: Running, tmp_path: Path) -> None:
    environment = {**service.environment, "FOI_DATA_DIR": str(tmp_path)}
    second = python("-m", "worker.supervisor", environment=environment, stderr=subprocess.PIPE)
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 1
    assert re.fullmatch(
        r"foi: cannot listen on 127.0.0.1:\d+ \(Address already in use\); set FOI_PORT or FOI_HOST\n", errors
    )


def test_ctrl_c_stops_everything_and_leaves_no_process(service: Running) -> None:
    """The last one of this module: the service is gone after it."""
    family = descendants(service.process.pid)
    assert len(family) == 4, "redis, service, worker, webhooks"
    service.process.send_signal(signal.SIGINT)
    assert service.process.wait(60) == 0
    assert [pid for pid in family if Path(f"/proc/{pid}").exists()] == []
    assert "Traceback" not in service.text()
