"""Load on the running service, and on what one would build instead of it, in one interleaved run.

`python -m benchmarks.load` starts both servers (or uses ours at --url). Each load goes to each of them in blocks that
alternate (ABAB...), so that whatever else the machine does hits both. Ours gets plain InstructPix2Pix, as the baseline
does, and FoI as a row of its own; `strength` is 1, since diffusers' pipeline knows no other, so that all run the same
steps. Our clients send `Prefer: wait=60` and then fetch the picture: a latency ends with the picture in hand. Writes
load.json, load.md and load.png.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np

from foi_core import openmp

PICTURE = Path(__file__).parent.parent / "demo" / "samples" / "scene.png"
INSTRUCTION = "make the ball blue"
SCALES = {"guidance_scale": 1.5, "image_guidance_scale": 1.5}  # the demo model's own: three UNet rows an edit
PNG = b"\x89PNG"
ANSWER_S, POLL_S, CALIBRATION_S = 600, 0.1, 3.0
IDLE_PAUSE_S = 0.25  # whatever the last edit left to do is done
SHARES = (0.5, 0.8)
"""Default rates: these shares of what one client gets from the last server, the baseline where there is one."""
QUANTILES = (50, 95, 99)
TIMES = ("latency", "queue", "run", "overhead")
SEEDS = itertools.count(1)


class Answer(NamedTuple):
    """How an edit ended, and the server's own times where it tells them."""

    accepted: bool
    done: bool
    queue_ms: float | None = None
    run_ms: float | None = None


class Sample(NamedTuple):
    ended: float  # seconds since the block began
    latency_ms: float
    answer: Answer


Edit = Callable[[int], Awaitable[Answer]]
"""One edit with this seed, from its submission to the picture in hand."""
Block = list[Sample]


@dataclass(frozen=True)
class Load:
    """`clients` that each send an edit as soon as the last is done and `pause` seconds are over; or, with a `rate`,
    Poisson arrivals of so many edits a second, whatever the answers do."""

    name: str
    clients: int = 0
    pause: float = 0.0
    rate: float | None = None


def ours(client: httpx.AsyncClient, picture: bytes, fields: Mapping[str, object]) -> Edit:
    async def edit(seed: int) -> Answer:
        files = {"image": ("picture.png", picture, "image/png")}
        data = {name: str(value) for name, value in {**fields, "seed": seed}.items()}
        sent = await client.post("/v1/edits", files=files, data=data, headers={"Prefer": "wait=60"})
        record: dict[str, Any] = sent.json() if sent.is_success else {"status": "refused"}
        while record["status"] in ("queued", "running"):
            await asyncio.sleep(POLL_S)
            record = (await client.get(record["urls"]["self"])).json()
        if record["status"] != "succeeded":
            return Answer(sent.is_success, done=False)
        result, metrics = await client.get(record["outputs"][0]["url"]), record["metrics"]
        return Answer(True, result.content.startswith(PNG), metrics["queue_ms"], metrics["run_ms"])

    return edit


def theirs(client: httpx.AsyncClient, picture: bytes, fields: Mapping[str, object]) -> Edit:
    body = {**fields, "image": base64.b64encode(picture).decode()}

    async def edit(seed: int) -> Answer:
        sent = await client.post("/predict", json={**body, "seed": seed})
        run_ms = float(sent.headers["X-Run-Ms"]) if sent.is_success else None
        return Answer(sent.is_success, sent.content.startswith(PNG), None, run_ms)

    return edit


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Poisson arrivals of `rate` a second within `seconds`: exponential gaps. The same for every server."""
    rng, times = np.random.default_rng(seed), [0.0]
    while times[-1] < seconds:
        times.append(times[-1] + float(rng.exponential(1 / rate)))
    return times[1:-1]


async def run_block(edit: Edit, load: Load, seconds: float, seed: int) -> Block:
    """Edits are sent for `seconds`; all are waited for."""
    origin, samples = time.perf_counter(), Block()

    def clock() -> float:
        return time.perf_counter() - origin

    async def once(due: float | None = None) -> None:
        begun = clock() if due is None else due
        try:
            answer = await edit(next(SEEDS))
        except httpx.HTTPError as error:
            print(f"failed: {error!r}", file=sys.stderr)
            answer = Answer(accepted=False, done=False)
        ended = clock()
        samples.append(Sample(ended, 1000 * (ended - begun), answer))

    async def client() -> None:
        while clock() < seconds:
            await once()
            await asyncio.sleep(load.pause)

    async with asyncio.TaskGroup() as group:
        for _ in range(load.clients):
            group.create_task(client())
        for due in arrivals(load.rate, seconds, seed) if load.rate else ():
            await asyncio.sleep(max(0.0, due - clock()))
            group.create_task(once(due))
    return samples


def quantiles(values: Sequence[float]) -> dict[str, float] | None:
    """p50, p95 and p99; None of nothing."""
    return {f"p{q}": round(float(np.percentile(values, q)), 1) for q in QUANTILES} if values else None


def figures(blocks: Sequence[Block], load: Load, seconds: float) -> dict[str, Any]:
    """What the blocks of one server and load say together. A block lasts until its last result."""
    samples = [sample for block in blocks for sample in block]
    done = [sample for sample in samples if sample.answer.done]
    ran = [(sample, sample.answer.run_ms) for sample in done if sample.answer.run_ms is not None]
    spans = [max((sample.ended for sample in block), default=seconds) for block in blocks]
    rates = [sum(s.answer.done for s in block) / span for block, span in zip(blocks, spans, strict=True)]
    sent_s = seconds * len(blocks) if load.rate else sum(spans)
    return {
        "edits": len(done),
        "not_done": len(samples) - len(done),
        "accepted_per_s": round(sum(s.answer.accepted for s in samples) / sent_s, 3),
        "edits_per_s": round(len(done) / sum(spans), 3),
        "edits_per_s_blocks": [round(rate, 3) for rate in rates],
        "latency_ms": quantiles([sample.latency_ms for sample in done]),
        "queue_ms": quantiles([s.answer.queue_ms for s in done if s.answer.queue_ms is not None]),
        "run_ms": quantiles([run_ms for _, run_ms in ran]),
        "overhead_ms": quantiles([sample.latency_ms - run_ms for sample, run_ms in ran]),
    }


async def measure(servers: Mapping[str, Edit], args: argparse.Namespace) -> list[dict[str, Any]]:
    for edit in servers.values():  # the batch sizes to come meet no cold kernel
        if not all(answer.done for answer in await asyncio.gather(*map(edit, range(max(args.clients))))):
            sys.exit("a server does not do its edits: no figures")
        alone = await run_block(edit, Load("calibration", clients=1), CALIBRATION_S, seed=0)
    rates = [share * len(alone) / alone[-1].ended for share in SHARES] if args.rate is None else args.rate
    loads = [
        Load("idle", clients=1, pause=IDLE_PAUSE_S),
        *(Load(f"{n} client{'s' * (n > 1)}", clients=n) for n in args.clients),
        *(Load(f"Poisson {rate:.2f}/s", rate=rate) for rate in rates),
    ]
    blocks: dict[tuple[Load, str], list[Block]] = {(load, name): [] for load in loads for name in servers}
    seconds = args.seconds / args.rounds
    for i in range(args.rounds):
        for load, name in blocks:
            print(f"round {i + 1} of {args.rounds}: {load.name}, {name}", file=sys.stderr)
            blocks[load, name].append(await run_block(servers[name], load, seconds, seed=i))
    return [
        {"load": load.name, "server": name, "clients": load.clients, "rate": load.rate, **figures(b, load, seconds)}
        for (load, name), b in blocks.items()
    ]


async def run(args: argparse.Namespace, url: str, baseline: str | None) -> list[dict[str, Any]]:
    picture, edit = PICTURE.read_bytes(), {"instruction": INSTRUCTION, **SCALES}
    fields = {**edit, "num_inference_steps": args.steps, "strength": 1}
    # httpx's own limits would keep edits beyond a hundred waiting here.
    clients = [httpx.AsyncClient(base_url=u, timeout=ANSWER_S, limits=httpx.Limits()) for u in (url, baseline or "")]
    async with clients[0], clients[1]:
        servers = {
            "ours, FoI": ours(clients[0], picture, {**fields, "method": "foi"}),
            "ours, plain IP2P": ours(clients[0], picture, {**fields, "method": "ip2p"}),
        }
        if baseline:
            servers["LitServe, plain IP2P"] = theirs(clients[1], picture, {**edit, "steps": args.steps})
        return await measure(servers, args)


def report(found: Mapping[str, Any]) -> str:
    """load.md: every row, and what the columns mean."""
    head = ["load", "server", "edits", "not done", "accepted/s", "edits/s (each block)", *(f"{t}, ms" for t in TIMES)]
    rows = [
        [row["load"], row["server"], row["edits"], row["not_done"], f"{row['accepted_per_s']:.2f}"]
        + [f"{row['edits_per_s']:.2f} ({', '.join(f'{rate:.2f}' for rate in row['edits_per_s_blocks'])})"]
        + [" / ".join(f"{value:.0f}" for value in (row[f"{t}_ms"] or {}).values()) or "-" for t in TIMES]
        for row in found["rows"]
    ]
    marks = [":---"] * 2 + ["---:"] * (len(head) - 2)
    table = "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in (head, marks, *rows))
    return f"""# Load

{found["device"]}. {"; ".join(f"{name}: {value}" for name, value in found["settings"].items())}.

{table}

Times are p50 / p95 / p99. Latency is from sending the edit to the picture in hand; queue and run are `metrics.queue_ms`
and `metrics.run_ms` (the baseline's run is its pipeline's call); overhead is latency less run: under load it holds the
waiting, in the idle row (one edit at a time, pauses between) what the service itself costs. Edits/s count until a
block's last result is there, accepted/s of Poisson arrivals only while they come.
"""


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Latency and edits/s against the number of clients; a bar's ends are the slowest and the fastest block."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from evaluation.scenes.plots import LINES, STYLE

    with rc_context(STYLE):
        figure = Figure((9.0, 4.2), layout="constrained")
        latency, throughput = figure.subplots(1, 2)
        for name, (colour, marker) in zip(dict.fromkeys(row["server"] for row in found["rows"]), LINES, strict=False):
            rows = [r for r in found["rows"] if r["server"] == name and r["clients"] and r["load"] != "idle"]
            clients = [r["clients"] for r in rows]
            for quantile, style in (("p50", "-"), ("p95", "--")):
                seconds = [r["latency_ms"][quantile] / 1000 for r in rows]
                latency.plot(clients, seconds, style, marker=marker, color=colour, label=f"{name}, {quantile}")
            throughput.plot(clients, [r["edits_per_s"] for r in rows], marker=marker, color=colour, label=name)
            each = np.array([r["edits_per_s_blocks"] for r in rows])
            throughput.vlines(clients, each.min(1), each.max(1), color=colour)
        for axis, what in ((latency, "end-to-end latency, s"), (throughput, "edits/s")):
            axis.set(xlabel="clients, each with one edit at a time", ylabel=what, xticks=clients, ylim=(0, None))
            axis.legend(fontsize=8)
        figure.suptitle(found["device"], fontsize=9)
        figure.savefig(path, dpi=160)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="our service, where it already runs; default: it is started")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rate", type=float, nargs="*", help=f"edits/s; default: {SHARES} of what one client gets")
    parser.add_argument("--seconds", type=float, default=20, help="for each row, all rounds together")
    parser.add_argument("--rounds", type=int, default=2, help="blocks of each row")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--litserve", action=argparse.BooleanOptionalAction, default=True, help="with the baseline")
    parser.add_argument("--litserve-batch", type=int, default=1, help="its max_batch_size")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the servers end with us
    from benchmarks.machine import describe
    from demo.showcase import running_service

    settings: dict[str, object] = {"steps": args.steps, "seconds a row": args.seconds, "rounds": args.rounds, **SCALES}
    settings["HTTP loop"] = "uvloop" if find_spec("uvloop") else "asyncio"  # LitServe brings it, and uvicorn takes it
    settings |= {name: os.environ[name] for name in openmp.CHOICES if name in os.environ}  # of both servers
    settings["load average before"] = round(os.getloadavg()[0], 2)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        baseline = None
        if args.litserve:
            from benchmarks.baseline_litserve import running  # it needs litserve

            settings |= {"litserve": version("litserve"), "its batch": args.litserve_batch}
            baseline = stack.enter_context(running(folder, args.litserve_batch))
        with redirect_stdout(sys.stderr):
            url = args.url or stack.enter_context(running_service(folder))
        rows = asyncio.run(run(args, url, baseline))
    device = "; ".join(f"{name}: {value}" for name, value in describe().items())
    found = {"device": device, "machine": describe(), "settings": settings, "rows": rows}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "load.json").write_text(json.dumps(found, indent=1) + "\n")
    (args.out / "load.md").write_text(report(found))
    draw(found, args.out / "load.png")


if __name__ == "__main__":
    main()
