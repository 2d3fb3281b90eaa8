"""`make demo`: the whole service is started, edits a picture over HTTP, and is stopped again.

Writes to out/demo: input.png, result.png, mask-1.png, mask-2.png, sheet.png, summary.json (the edit's final record).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from demo.data import REPORTED_SEED
from demo.edits import join, random_edits
from demo.scenes import Scene, Thing, random_scene, render
from demo.sheet import Tile, difference, heat, sheet

ROOT = Path(__file__).parent.parent
OUT = ROOT / "out" / "demo"
START_SECONDS, EDIT_SECONDS, STOP_SECONDS = 120, 170, 70
INSTRUCTION = "make the ball blue and turn the grass into sand"
SCENE = Scene(
    sky="blue",
    ground="grass",
    horizon=60,
    things=(Thing("ball", "red", 32, 92, 22), Thing("house", "yellow", 92, 84, 24)),
    texture=2026,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instruction", help="default: two edits that fit the scene")
    parser.add_argument("--scene", type=int, help="another held-out scene, by number")
    parser.add_argument("--image", type=Path, help="a picture of your own")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    picture, instruction = _input(args.scene, args.image)
    instruction = args.instruction or instruction
    picture.save(args.out / "input.png")
    with running_service(args.out) as url, httpx.Client(base_url=url, timeout=30) as client:
        record = edit(client, picture, instruction, args.seed, "foi")
        baseline = edit(client, picture, instruction, args.seed, "ip2p")
        files = download(client, record, args.out)
        plain = fetch(client, baseline["outputs"][0]["url"])
    (args.out / "summary.json").write_text(json.dumps(record, indent=2) + "\n")
    _draw(record, picture, plain, files).save(args.out / "sheet.png")
    print(f"done: look at {os.path.relpath(args.out / 'sheet.png')}")


@contextmanager
def running_service(folder: Path) -> Iterator[str]:
    """Redis, API and worker in processes of their own: yields the address once they are ready, stops all at the end."""
    port = _free_port()
    inherited = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "FOI_REDIS_URL")}
    environment = {**inherited, "FOI_PORT": str(port), "FOI_DATA_DIR": str(folder / "data")}
    log = (folder / "service.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.supervisor"], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
    )
    url = f"http://127.0.0.1:{port}"
    try:
        print("starting Redis, API and worker ...", flush=True)
        _wait_until_ready(url, process, Path(log.name))
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=STOP_SECONDS)
        finally:
            process.kill()  # its children end with it
            log.close()


def edit(client: httpx.Client, picture: Image.Image, instruction: str, seed: int, method: str) -> dict[str, Any]:
    """Submits one edit and follows it to its end; returns the final record."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    fields = {"instruction": instruction, "seed": str(seed), "method": method}
    answer = client.post("/v1/edits", data=fields, files={"image": ("input.png", buffer.getvalue(), "image/png")})
    if answer.status_code != httpx.codes.ACCEPTED:
        sys.exit(f"the service refused the edit: {answer.text}")
    location = answer.headers["location"]
    begun = time.monotonic()
    while time.monotonic() - begun < EDIT_SECONDS:
        record: dict[str, Any] = client.get(location).raise_for_status().json()
        progress = record["progress"] or {}
        step, steps = progress.get("step", 0), progress.get("steps", 0)
        filled = 30 * step // steps if steps else 0
        line = f"{method:5} {record['status']:10} [{'#' * filled}{'.' * (30 - filled)}] {step}/{steps}"
        print(line, end="\r" if sys.stdout.isatty() else "\n", flush=True)
        if record["status"] in ("succeeded", "failed", "canceled"):
            break
        time.sleep(0.2 if sys.stdout.isatty() else 2)
    print()
    if record["status"] != "succeeded":
        sys.exit(f"the edit did not succeed: {json.dumps(record['error'] or record['status'])}")
    return record


def download(client: httpx.Client, record: dict[str, Any], folder: Path) -> dict[str, Image.Image]:
    """The result, the masks and the attention maps by file name; results and masks are written to `folder`."""
    files = {"result.png": fetch(client, record["outputs"][0]["url"])}
    for i, mask in enumerate(record["masks"], start=1):
        files[f"mask-{i}.png"] = fetch(client, mask["url"])
    for name, image in files.items():
        image.save(folder / name)
    for i, attention_map in enumerate(record["attention_maps"], start=1):
        files[f"attention-{i}.png"] = fetch(client, attention_map["url"])
    return files


def fetch(client: httpx.Client, url: str) -> Image.Image:
    return Image.open(io.BytesIO(client.get(url).raise_for_status().content))


def _draw(
    record: dict[str, Any], picture: Image.Image, plain: Image.Image, files: dict[str, Image.Image]
) -> Image.Image:
    result, settings = files["result.png"], record["input"]
    outside = record["metrics"]["change_outside_mask"]
    top = [
        Tile(picture, "input", f"{picture.width} x {picture.height}"),
        Tile(plain, "plain InstructPix2Pix", _changed(picture, plain)),
        Tile(result, "Focus on Your Instruction", _changed(picture, result)),
        Tile(difference(picture, result), "what FoI changed", f"largest change outside the masks: {outside} of 255"),
    ]
    regions = []
    for i, (mask, part) in enumerate(zip(record["masks"], settings["instructions"], strict=True), start=1):
        regions.append(Tile(heat(files[f"attention-{i}.png"]), f"attention {i}: {part['keyword']}", part["text"]))
        regions.append(
            Tile(files[f"mask-{i}.png"], f"mask {i}", f"{100 * mask['area']:.0f}% of the picture may change")
        )
    rows = [top, *(regions[i : i + 4] for i in range(0, len(regions), 4))]
    scales = f"s_T {settings['guidance_scale']:g}, s_I {settings['image_guidance_scale']:g}"
    text = ", ".join(part["text"] for part in settings["instructions"])
    return sheet(f"{text}   (seed {settings['seed']}, {scales})", rows)


def _changed(before: Image.Image, after: Image.Image) -> str:
    difference_ = np.abs(np.asarray(before.convert("RGB"), int) - np.asarray(after.convert("RGB"), int)).max(2)
    return f"{100 * (difference_ > 0).mean():.0f}% of the pixels are not the input's"


def _input(scene: int | None, image: Path | None) -> tuple[Image.Image, str]:
    """The picture, and an instruction that fits it."""
    if image is not None:
        return Image.open(image).convert("RGB"), INSTRUCTION
    if scene is None:
        return Image.fromarray(render(SCENE)), INSTRUCTION
    rng = np.random.default_rng([17, REPORTED_SEED + scene])
    drawn = random_scene(rng)
    return Image.fromarray(render(drawn)), join(rng, random_edits(rng, drawn, 2))


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"the service stopped while starting:\n{log.read_text()[-2000:]}")
        try:
            if httpx.get(f"{url}/readyz", timeout=2).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    sys.exit(f"the service was not ready within {START_SECONDS} s; see {log}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
