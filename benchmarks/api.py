"""`python -m benchmarks.api`: what the HTTP service bears. No model in the first parts: edits are taken in and wait.

Submits a second of a service that has one core; how soon an edit is shown at 200 requests a second; memory with 200
open event streams; and, with the demo model behind it, twice the load that it can do: who is refused is told when to
come again, memory stays flat, and every edit that was accepted is done. Writes api.json, api.md and api.png.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.machine import describe
from demo.scenes import random_scene, render
from demo.showcase import running_service
from jobs import presence
from jobs.connection import connect
from jobs.redis_server import EmbeddedRedis

FORM = {"instruction": "make the ball blue"}
SUBMITTERS, RATE, STREAMS = 8, 200, 200
PAGE = os.sysconf("SC_PAGE_SIZE")
GOALS = {"accepts_per_s": 150, "get_p99_ms": 15}


def photo(side: int = 512) -> bytes:
    """A JPEG of this size, with a camera's noise."""
    scene = Image.fromarray(render(random_scene(np.random.default_rng(1)))).resize((side, side))
    pixels = np.asarray(scene)
    noisy = pixels + np.random.default_rng(2).normal(0, 4, pixels.shape)
    buffer = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@contextmanager
def service_on_one_core(folder: Path) -> Iterator[tuple[str, int, str]]:
    """A service without workers, its process id, and its Redis; Redis and the callers have the other cores."""
    redis = EmbeddedRedis(folder / "redis")
    redis.start()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own, *others = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, set(others) or {own})
    settings = {"REDIS_URL": redis.url, "FOI_PORT": str(port), "FOI_DATA_DIR": str(folder), "FOI_MAX_QUEUE": "1000000"}
    process = subprocess.Popen(
        [sys.executable, "-m", "service"],
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {own}),
    )
    url = f"http://127.0.0.1:{port}"
    try:
        with connect(redis.url, decode=True) as client:
            presence.publish(client, presence.WorkerPresence(name="none", state="ready", model="none"))
        while not _answers(f"{url}/livez"):
            time.sleep(0.1)
        yield url, process.pid, redis.url
    finally:
        process.terminate()
        process.wait()
        redis.stop()
        os.sched_setaffinity(0, {own, *others})


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 2**20


def quantiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{q}_ms": round(float(np.percentile(seconds, q)) * 1000, 2) for q in (50, 95, 99)}


async def accepts(client: httpx.AsyncClient, picture: bytes, seconds: float) -> dict[str, Any]:
    """Submits of a few callers who each send the next as soon as the last is answered."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while (begun := time.perf_counter()) < end:
            answer = await client.post("/v1/edits", files={"image": picture}, data=FORM)
            assert answer.status_code == 202, answer.text
            times.append(time.perf_counter() - begun)

    await asyncio.gather(*(caller() for _ in range(SUBMITTERS)))
    return {"accepts_per_s": round(len(times) / seconds, 1), **quantiles(times)}


async def looks(client: httpx.AsyncClient, url: str, seconds: float) -> dict[str, Any]:
    """An edit is looked at so often a second, whatever the answers do; times count from when a look was due."""
    times: list[float] = []

    async def look(due: float) -> None:
        answer = await client.get(url)
        assert answer.status_code == 200, answer.text
        times.append(time.perf_counter() - due)

    return {"requests_per_s": RATE, **await _steadily(look, seconds, times)}


async def _steadily(work: Callable[[float], Awaitable[None]], seconds: float, times: list[float]) -> dict[str, float]:
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for i in range(round(RATE * seconds)):
            due = begun + i / RATE
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(work(due))  # type: ignore[arg-type]
    return quantiles(times)


async def streams(client: httpx.AsyncClient, edit: dict[str, Any], pid: int, seconds: float) -> dict[str, Any]:
    """Memory of the service before, and while so many listen to an edit; all of them hear of its end."""
    before, found = resident_mib(pid), []
    async with AsyncExitStack() as stack:
        answers = [
            await stack.enter_async_context(client.stream("GET", edit["urls"]["events"])) for _ in range(STREAMS)
        ]
        lines = [answer.aiter_lines() for answer in answers]
        for one in lines:
            while await anext(one):
                pass
        for _ in range(10):
            found.append(round(resident_mib(pid), 1))
            await asyncio.sleep(seconds / 10)
        await client.post(edit["urls"]["cancel"])
        ended = await asyncio.gather(*map(_ends_with_done, lines))
    return {"streams": STREAMS, "before_mib": round(before, 1), "mib": found, "heard_the_end": sum(ended)}


async def _ends_with_done(lines: Any) -> bool:
    last = ""
    async for line in lines:
        last = line if line.startswith("event:") else last
    return last == "event: done"


async def overload(url: str, pids: list[int], seconds: float) -> dict[str, Any]:
    """Twice as many edits a second as the service can do."""
    picture = (Path(__file__).parent.parent / "demo" / "samples" / "scene.png").read_bytes()
    form = {**FORM, "num_inference_steps": 4}
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=httpx.Limits()) as client:

        async def submit(wait: bool = False) -> httpx.Response:
            headers = {"Prefer": "wait=60"} if wait else {}
            return await client.post("/v1/edits", files={"image": picture}, data=form, headers=headers)

        begun = time.perf_counter()
        await asyncio.gather(*(submit(wait=True) for _ in range(16)))
        capacity = 16 / (time.perf_counter() - begun)
        memory = [sum(map(resident_mib, pids))]
        answers = []
        begun = time.perf_counter()
        for i in itertools.count():
            due = begun + i / (2 * capacity)
            if due > begun + seconds:
                break
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            answers.append(await submit())
            memory.append(sum(map(resident_mib, pids)))
        accepted = [answer.json()["urls"]["self"] for answer in answers if answer.status_code == 202]
        ends = Counter([await _end(client, edit) for edit in accepted])
        memory.append(sum(map(resident_mib, pids)))
    refused = [answer for answer in answers if answer.status_code != 202]
    return {
        "capacity_per_s": round(capacity, 2),
        "sent": len(answers),
        "answers": Counter(str(answer.status_code) for answer in answers),
        "refused_without_retry_after": sum("retry-after" not in answer.headers for answer in refused),
        "accepted_and_ended_as": ends,
        "mib": [round(value, 1) for value in memory],
    }


async def _end(client: httpx.AsyncClient, url: str) -> str:
    while (edit := (await client.get(url)).json())["status"] in ("queued", "running"):
        await asyncio.sleep(0.2)
    return str(edit["status"])


async def measure(url: str, pid: int, seconds: float) -> dict[str, Any]:
    limits = httpx.Limits(max_connections=2 * STREAMS)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        picture = photo()
        await accepts(client, picture, 1)
        found = {"accepts": await accepts(client, picture, seconds)}
        edit = (await client.post("/v1/edits", files={"image": picture}, data=FORM)).json()
        _say("looks")
        await looks(client, edit["urls"]["self"], 1)
        found["looks"] = await looks(client, edit["urls"]["self"], seconds)
        _say("streams")
        found["streams"] = await streams(client, edit, pid, 2 * seconds)
    return found


def table(report: dict[str, Any]) -> str:
    taken, looked, heard, over = (report[name] for name in ("accepts", "looks", "streams", "overload"))
    memory = over["mib"]
    rows = [
        ("submits a second, one core, 512x512 JPEG", f"{taken['accepts_per_s']}", f">= {GOALS['accepts_per_s']}"),
        (f"time of a submit with {SUBMITTERS} callers, ms, p50 / p95 / p99", _times(taken), ""),
        (f"time of a look at {RATE} a second, ms, p50 / p95 / p99", _times(looked), f"p99 <= {GOALS['get_p99_ms']}"),
        (
            f"MiB: before {STREAMS} streams, first and last with them",
            _memory(heard["before_mib"], heard["mib"]),
            "flat",
        ),
        ("streams that heard the end", f"{heard['heard_the_end']} of {heard['streams']}", "all"),
        ("capacity with the demo model, edits a second", f"{over['capacity_per_s']}", ""),
        (f"answers to {over['sent']} submits at twice that", _counts(over["answers"]), "202, 429, 503"),
        ("of them refused without Retry-After", str(over["refused_without_retry_after"]), "0"),
        ("accepted edits ended as", _counts(over["accepted_and_ended_as"]), "succeeded"),
        (
            "MiB of service and worker: before, highest, after",
            _memory(memory[0], [max(memory), memory[-1]]),
            "flat",
        ),
    ]
    device = "; ".join(f"{name}: {value}" for name, value in report["machine"].items())
    lines = [f"| {name} | {value} | {goal} |" for name, value, goal in rows]
    return "\n".join(["# The HTTP service", "", f"{device}.", "", "| | | goal |", "| :--- | ---: | :--- |", *lines, ""])


def _times(found: dict[str, float]) -> str:
    return " / ".join(str(found[f"p{q}_ms"]) for q in (50, 95, 99))


def _memory(before: float, after: list[float]) -> str:
    return " / ".join(str(value) for value in (before, after[0], after[-1]))


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(found.items()))


def draw(report: dict[str, Any], path: Path) -> None:
    figure = Figure((9.0, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    shown = (
        (left, f"{STREAMS} open event streams", "sample", "service, MiB", report["streams"]["mib"]),
        (right, "twice the capacity", "submit", "service and worker, MiB", report["overload"]["mib"]),
    )
    for axis, title, of, what, values in shown:
        axis.plot(values, color="#0072b2")
        axis.set(title=title, xlabel=of, ylabel=what, ylim=(0, 1.2 * max(values)))
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.api", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    report: dict[str, Any] = {"machine": describe()}
    with tempfile.TemporaryDirectory() as folder:
        with service_on_one_core(Path(folder)) as (url, pid, _):
            _say("accepts")
            report |= asyncio.run(measure(url, pid, args.seconds))
        _say("overload")
        os.environ["FOI_MAX_QUEUE"] = "10"
        with tempfile.TemporaryDirectory() as own, redirect_stdout(sys.stderr), running_service(Path(own)) as url:
            report["overload"] = asyncio.run(overload(url, _processes(), 3 * args.seconds))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "api.json").write_text(json.dumps(report, indent=1) + "\n")
    (args.out / "api.md").write_text(table(report))
    draw(report, args.out / "api.png")
    print(table(report))


def _processes() -> list[int]:
    """The service and the worker, which are our child's children."""
    found = []
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        words = status.read_bytes().split(b"\0")
        if words[1:3] in ([b"-m", b"service"], [b"-m", b"worker"]):
            found.append(int(status.parent.name))
    return found


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
