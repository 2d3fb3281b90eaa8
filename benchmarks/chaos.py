"""`python -m benchmarks.chaos`: the real service under kill -9, frozen workers, a frozen Redis, cuts and wrong clocks.

Clients send edits over HTTP while processes of the service are killed and stopped, at moments drawn by a seed. Others
are drawn among the round trips of a submit: there Redis is cut off from everybody, or the service is killed. The clocks
of the two workers are 60 s behind and 60 s ahead. What was acknowledged (202 with an id) must have exactly one result,
that of an undisturbed run, and one end, and nothing else may be there. Exit status 1, and the edits' ids, where that is
not so. Writes chaos.json, chaos.md and chaos.png.

With `--in-flight 1` a result must have the very bytes of the undisturbed one. Edits that share a batch round otherwise,
also without any chaos: there a picture may differ by one level of 255, and the table says how many do.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import httpx
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from rq.executions import Execution

from benchmarks import machine
from benchmarks.redis_proxy import RedisProxy, When
from jobs.connection import RedisError, connect
from jobs.queue import PRIORITIES, rq_queues
from jobs.redis_server import EmbeddedRedis, running_redis
from jobs.repository import events_key
from jobs.settings import Settings
from worker.rq_worker import LEASE_S

ROOT = Path(__file__).parent.parent
SIDE = 64
CLIENTS = 16
"""More than two workers take at once, so that some edits always wait."""
STOP_S = LEASE_S + 4
"""A worker that is stopped for so long has lost its edits when it goes on."""
PAUSE_S = 5.0
CUT_S = 1.0
ROUND_TRIPS = 8
"""Of a submit with an idempotency key, from the first that names it (CLAIM) to the answer, about."""
CLAIM = b"foi:idempotency:"
CLOCK_SKEWS = "-60,60"
"""In seconds, of the workers by their index; the supervisor and the service have the first."""
LIMIT_S, POLL_S = 600, 0.4
ENDED = ("succeeded", "failed", "canceled")
CAVEAT = (
    "FOI_MAX_DEATHS=1000: every death is the harness's doing here, so no edit is blamed for its worker's. "
    "An edit under which a worker died still runs alone when it is tried again."
)

Action = Literal["kill", "stop", "cut"]
Target = Literal["worker", "service", "redis"]
TARGETS: Mapping[Target, str] = {"worker": "-m worker ", "service": "-m service", "redis": "redis-server"}
"""The processes that are disturbed, by what stands in their command lines."""
ACTIONS: Mapping[Action, str] = {"kill": "SIGKILL", "stop": "SIGSTOP", "cut": "in a submit"}
COLOURS: Mapping[Target, str] = {"worker": "#d55e00", "service": "#0072b2", "redis": "#00805e"}
Json = dict[str, Any]
T = TypeVar("T")


class Planned(NamedTuple):
    gap_s: float
    action: Action
    target: Target


@dataclass
class Disturbance:
    """One that was done. `edits`: those that the worker had; `seconds`: until the API or Redis answered again, or how
    long the stop was."""

    ms: int
    action: Action
    target: Target
    edits: list[str]
    seconds: float | None = None


class Event(NamedTuple):
    """Of an edit's stream, with the time in ms that Redis gave it."""

    ms: int
    kind: str
    status: str | None


@dataclass(frozen=True)
class Found:
    """An acknowledged edit. `seen`: the record with which its client saw it end; the rest: what there is afterwards."""

    edit_id: str
    form: int
    seen: Json | None
    record: Json | None
    events: Sequence[Event]
    files: Mapping[str, bytes | None]  # those that the record lists; None: it cannot be fetched

    @property
    def priority(self) -> str | None:
        return self.record["priority"] if self.record else None

    @property
    def pictures(self) -> list[bytes]:
        outputs = self.record["outputs"] if self.record else ()
        return [data for one in outputs if (data := self.files[one["url"]]) is not None]


def plan(kills: int, stops: int, pauses: int, seconds_between: float, seed: int, cuts: int = 0) -> list[Planned]:
    """Each kind of process is killed once; kills beyond that hit mostly workers. Of the cuts every other one cuts Redis
    off, and the rest kill the service."""
    rng = random.Random(seed)
    targets = [*TARGETS][:kills] + rng.choices([*TARGETS], (3, 1, 1), k=max(0, kills - len(TARGETS)))
    actions: list[tuple[Action, Target]] = [("kill", target) for target in targets]
    actions += (("stop", "worker") for _ in range(stops))
    actions += (("stop", "redis") for _ in range(pauses))
    actions += (("cut", "service" if i % 2 else "redis") for i in range(cuts))
    rng.shuffle(actions)
    return [Planned(seconds_between * rng.uniform(0.5, 1.5), *action) for action in actions]


def forms(steps: int) -> list[Json]:
    """The distinct edits: one and two instructions, both methods, every priority, a seed each."""
    texts = (["make the ball blue"], ["turn the grass into sand"], ["make the sky orange", "make the ball blue"])
    mixed = itertools.product(texts, ("foi", "ip2p"), range(2))
    return [
        {"instruction": text, "method": method, "priority": PRIORITIES[i % 3], "seed": i, "num_inference_steps": steps}
        for i, (text, method, _) in enumerate(mixed)
    ]


class Service:
    """The service as `make serve` starts it, behind whose back Redis can be cut off, and its processes."""

    def __init__(self, folder: Path, model: str, workers: int, in_flight: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self._stack = ExitStack()
        redis = self._stack.enter_context(running_redis(Settings(data_dir=folder / "data", redis_url="")))
        assert isinstance(redis, EmbeddedRedis)
        self._redis_server, self.proxy = redis, RedisProxy(redis.socket)
        self.redis, self._raw = connect(redis.url, decode=True), connect(redis.url)
        self.url, self.log = f"http://127.0.0.1:{port}", folder / "log"
        settings = {"PORT": port, "DATA_DIR": folder / "data", "MODEL": model, "WORKERS": workers}
        settings |= {"MAX_IN_FLIGHT": in_flight, "MAX_DEATHS": 1000, "LOG_FORMAT": "console"}
        settings |= {"REDIS_URL": self.proxy.url}
        own = {f"FOI_{name}": str(value) for name, value in settings.items()}
        path = f"{ROOT / 'benchmarks' / 'skewed_clock'}:{ROOT}"
        environment = {**os.environ, **own, "PYTHONPATH": path, "CLOCK_SKEWS": CLOCK_SKEWS}
        with self.log.open("w") as log:
            command = [sys.executable, "-m", "worker.supervisor"]
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    def stop(self) -> None:
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(60)
        self._process.kill()
        self.proxy.close()
        self._stack.close()

    def pids(self, target: Target) -> list[int]:
        """Of its processes of a kind, also those that are stopped; a dead one has no command line."""
        if target == "redis":
            server = self._redis_server._process
            return [server.pid] if server is not None and _command(server.pid) else []
        threads = Path(f"/proc/{self._process.pid}/task").iterdir()
        children = [int(pid) for thread in threads for pid in (thread / "children").read_text().split()]
        return [pid for pid in children if TARGETS[target] in _command(pid)]

    def edits_of(self, pid: int) -> list[str]:
        """Those that a worker has leases on."""
        name, held = _command(pid).partition("--name ")[2].split()[0], []
        for queue in rq_queues(self._raw):
            for job_id, execution_id in queue.started_job_registry.get_job_and_execution_ids(cleanup=False):
                with suppress(ValueError):  # it has just ended
                    if Execution.fetch(execution_id, job_id, self._raw).worker_name.startswith(name):
                        held.append(job_id)
        return held

    def events(self, edit_id: str) -> list[Event]:
        entries: Any = self.redis.xrange(events_key(edit_id))
        return [Event(int(i.split("-")[0]), e["type"], json.loads(e["data"]).get("status")) for i, e in entries]

    def answers(self, target: Target) -> bool:
        with suppress(httpx.TransportError, RedisError):
            if target == "worker":  # any of them, ready for edits
                return httpx.get(f"{self.url}/readyz").is_success
            return bool(self.redis.ping()) if target == "redis" else httpx.get(f"{self.url}/livez").is_success
        return False


class Chaos:
    """Does what was planned, and notes what it did."""

    def __init__(self, service: Service, seed: int) -> None:
        self._service, self._rng = service, random.Random(seed)
        self._stopped: set[int] = set()
        self.done: list[Disturbance] = []
        self.over = threading.Event()

    def run(self, planned: Sequence[Planned]) -> None:
        try:
            for one in planned:
                time.sleep(one.gap_s)
                self._disturb(one.action, one.target)
                _say(f"{one.action} {one.target}, {len(self.done)} of {len(planned)}")
            wait_until(lambda: not self._stopped)
        finally:
            self.over.set()

    def _disturb(self, action: Action, target: Target) -> None:
        if action == "cut":
            self._cut(target)
            return
        pid, edits = wait_until(lambda: self._frozen(target))
        done, begun = Disturbance(_now_ms(), action, target, edits), time.monotonic()
        self.done.append(done)
        if action == "stop":
            done.seconds = STOP_S if target == "worker" else PAUSE_S
            self._stopped.add(pid)
            threading.Timer(done.seconds, self._go_on, [pid]).start()
        else:
            os.kill(pid, signal.SIGKILL)
        if target != "worker":
            wait_until(lambda: (action == "stop" or not _command(pid)) and self._service.answers(target))
            done.seconds = time.monotonic() - begun

    def _cut(self, target: Target) -> None:
        """At one of the round trips of the next submit Redis is out of reach for a while, or the service is killed."""
        when: When = self._rng.choice(get_args(When))
        killed = self._service.pids("service") if target == "service" else []
        proxy = self._service.proxy

        def then() -> None:
            for pid in killed:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

        proxy.arm(self._rng.randint(1, ROUND_TRIPS), when, then, CLAIM)
        wait_until(lambda: proxy.down)
        begun = time.monotonic()
        self.done.append(Disturbance(_now_ms(), "cut", target, []))
        if target == "redis":
            time.sleep(CUT_S)
        proxy.heal()
        wait_until(lambda: not any(map(_command, killed)) and self._service.answers("service"))
        self.done[-1].seconds = time.monotonic() - begun

    def _go_on(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        self._stopped.discard(pid)

    def _frozen(self, target: Target) -> tuple[int, list[str]] | None:
        """A process that is stopped from here on; a worker that has edits, because with none nothing can be lost."""
        pids = [pid for pid in self._service.pids(target) if pid not in self._stopped]
        for pid in self._rng.sample(pids, len(pids)):
            os.kill(pid, signal.SIGSTOP)
            if target != "worker":
                return pid, []
            with suppress(RedisError):
                if edits := self._service.edits_of(pid):
                    return pid, edits
            os.kill(pid, signal.SIGCONT)
        return None


class Caller:
    """A client with patience: tries again where nothing answers, or the service says that it cannot now."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=15)
        self.answers: Counter[str] = Counter()

    def submit(self, form: Json, picture: bytes) -> str:
        """The edit's id: only with it has the service promised anything."""
        key, files = {"Idempotency-Key": uuid.uuid4().hex}, {"image": ("input.png", picture, "image/png")}
        answer = self._ask("POST", "/v1/edits", data=form, files=files, headers=key)
        if answer.status_code != httpx.codes.ACCEPTED:
            raise RuntimeError(f"the service refused an edit: {answer.text}")
        return str(answer.json()["id"])

    def record(self, edit_id: str) -> Json | None:
        answer = self._ask("GET", f"/v1/edits/{edit_id}")
        return answer.json() if answer.is_success else None

    def follow(self, edit_id: str) -> Json | None:
        """The record with which it ended, or its last where it does not end; None where it is lost."""
        deadline = time.monotonic() + LIMIT_S
        while (record := self.record(edit_id)) and record["status"] not in ENDED and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return record

    def file(self, url: str) -> bytes | None:
        answer = self._ask("GET", url)
        return answer.content if answer.is_success else None

    def _ask(self, method: str, url: str, **parts: Any) -> httpx.Response:
        def answer() -> httpx.Response | None:
            try:
                answer = self._http.request(method, url, **parts)
            except httpx.TransportError:
                self.answers["none"] += 1
                return None
            self.answers[str(answer.status_code)] += 1
            still_in_flight = answer.status_code == httpx.codes.CONFLICT
            return None if answer.is_server_error or still_in_flight else answer

        return wait_until(answer, pause=POLL_S)


def submit_all(
    caller: Caller, distinct: Sequence[Json], picture: bytes, edits: int, over: threading.Event
) -> list[tuple[str, int, Json | None]]:
    """`CLIENTS` callers, each with one edit at a time, until there were `edits` and the chaos is over. What was
    acknowledged: id, form, and the record with which it ended."""
    numbers = itertools.count()
    ended: list[tuple[str, int, Json | None]] = []

    def client(_: int) -> None:
        while (number := next(numbers)) < edits or not over.is_set():
            form = number % len(distinct)
            edit_id = caller.submit(distinct[form], picture)
            ended.append((edit_id, form, caller.follow(edit_id)))
            if len(ended) % 20 == 0:
                _say(f"{len(ended)} edits have ended")

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))
    return ended


def found(service: Service, caller: Caller, edit_id: str, form: int, seen: Json | None) -> Found:
    record = caller.record(edit_id)
    files = [file["url"] for kind in ("outputs", "masks", "attention_maps") for file in (record or {}).get(kind, ())]
    return Found(edit_id, form, seen, record, service.events(edit_id), {url: caller.file(url) for url in files})


def difference(result: bytes, undisturbed: bytes) -> int:
    """0 for the same bytes; otherwise the largest of any pixel, of 255, and at least 1."""
    if result == undisturbed:
        return 0
    one, other = (np.asarray(Image.open(io.BytesIO(data)), int) for data in (result, undisturbed))
    return max(1, int(abs(one - other).max())) if one.shape == other.shape else 255


def faults(found: Found, undisturbed: bytes, rounding: int = 0) -> dict[str, bool]:
    """Everything that may be wrong with an acknowledged edit, and whether it is."""
    status = found.record and found.record["status"]
    kinds = [event.kind for event in found.events]
    return {
        "lost": status not in ENDED,
        "failed": status in ENDED and status != "succeeded",
        "doubled": len(found.pictures) > 1 or kinds.count("output") > 1,
        "without a terminal event": "done" not in kinds,
        "two terminal events": kinds.count("done") > 1,
        "news after its end": "done" in kinds and kinds[-1] != "done",
        "changed after its end": found.seen is not None and found.seen != found.record,
        "another picture": any(difference(picture, undisturbed) > rounding for picture in found.pictures),
        "file missing": None in found.files.values(),
    }


def recoveries(done: Iterable[Disturbance], all_found: Iterable[Found]) -> dict[str, list[float]]:
    """Seconds from a disturbance to each recovery from it. An edit of a dead worker is queued again before it runs
    again: in between it waits for more urgent ones, until it can run alone, and maybe for a process that starts."""
    by_id, times = {one.edit_id: one for one in all_found}, defaultdict[str, list[float]](list)
    for one in done:
        if one.action != "stop" and one.seconds is not None:
            done_to = "killed" if one.action == "kill" else "cut in a submit"
            times[f"{one.target} {done_to}: it answers again"].append(one.seconds)
        for edit in (by_id[edit_id] for edit_id in one.edits if edit_id in by_id):
            changes = [event for event in edit.events if event.kind == "status"]
            before, after = ([e for e in changes if (e.ms > one.ms) == later] for later in (False, True))
            if [e.status for e in (*before[-1:], *after[:1])] != ["running", "queued"]:
                continue  # the worker held it and did not run it: it had ended, or waited to run alone
            name = f"worker {'killed' if one.action == 'kill' else 'stopped'}: its"
            times[f"{name} edit is queued again"].append((after[0].ms - one.ms) / 1000)
            ms = next((e.ms for e in after if e.status == "running"), None)
            if ms is not None:
                times[f"{name} edit of {edit.priority} priority runs again"].append((ms - one.ms) / 1000)
    return times


def summary(
    all_found: Sequence[Found], undisturbed: Sequence[bytes], done: Sequence[Disturbance], rounding: int
) -> Json:
    """Every fault is named, also those that no edit has."""
    verdicts = {one.edit_id: faults(one, undisturbed[one.form], rounding) for one in all_found}
    times = recoveries(done, all_found)
    pictures = [(picture, undisturbed[one.form]) for one in all_found for picture in one.pictures]
    return {
        "acknowledged": len(all_found),
        "same_bytes": sum(ours == theirs for ours, theirs in pictures),
        "faults": {name: [i for i, wrong in verdicts.items() if wrong[name]] for name in next(iter(verdicts.values()))},
        "recovery_s": {name: {"n": len(of), **_percentiles(of)} for name, of in sorted(times.items())},
        "disturbances": [asdict(one) for one in done],
        "ended_ms": sorted(event.ms for one in all_found for event in one.events if event.kind == "done"),
    }


def table(report: Json) -> str:
    counts = Counter(f"{one['action']} {one['target']}" for one in report["disturbances"])
    rows = [f"| acknowledged edits | {report['acknowledged']} |"]
    rows += [f"| with the bytes of the undisturbed result | {report['same_bytes']} |"]
    rows += [f"| **made, and the answer to no request** | **{report['unacknowledged']}** |"]
    rows += [f"| tracebacks in the service's log | {report['tracebacks']} |"]
    rows += [f"| {name} | {n} |" for name, n in sorted(counts.items())]
    rows += [f"| **{name}** | **{len(ids)}** |" for name, ids in report["faults"].items()]
    times = [
        f"| {name} | {of['n']} | {of['p50']:.1f} | {of['p99']:.1f} | {of['max']:.1f} |"
        for name, of in report["recovery_s"].items()
    ]
    head = ["| | |", "|---|---|", *rows, "", "| seconds until | n | p50 | p99 | max |", "|---|---|---|---|---|", *times]
    return "\n".join([*head, "", f"{_machine(report)}. {CAVEAT}", ""])


def plot(report: Json, path: Path) -> None:
    """Edits completed over time, with a mark for every disturbance."""
    ended, first = report["ended_ms"], min(report["ended_ms"])
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    axis = figure.subplots()
    axis.step([(ms - first) / 1000 for ms in ended], range(1, len(ended) + 1), where="post", color="black")
    for one in report["disturbances"]:
        at, colour = (one["ms"] - first) / 1000, COLOURS[one["target"]]
        name = f"{one['target']}: {ACTIONS[one['action']]}"
        if one["action"] != "stop":
            style = "-" if one["action"] == "kill" else ":"
            axis.axvline(at, color=colour, linewidth=1.5, linestyle=style, label=name)
        else:
            axis.axvspan(at, at + one["seconds"], color=colour, alpha=0.25, linewidth=0, label=name)
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, frameon=False)
    axis.set(xlabel="seconds", ylabel="edits done", title=_machine(report), ylim=(0, None))
    figure.savefig(path, dpi=100)


def main() -> int:
    arguments = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="foi-chaos-"))
    _say(f"the service's log and data, kept unless all is well: {folder}")
    service = Service(folder, arguments.model, arguments.workers, arguments.in_flight)
    try:
        report = _measure(service, arguments)
    finally:
        service.stop()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "chaos.json").write_text(json.dumps(report, indent=1) + "\n")
    (arguments.out / "chaos.md").write_text(table(report))
    plot(report, arguments.out / "chaos.png")
    print(table(report))
    wrong = {name: ids for name, ids in report["faults"].items() if ids}
    for name, ids in wrong.items():
        _say(f"{name}: {' '.join(ids)}")
    if not wrong and not report["tracebacks"] and not report["unacknowledged"]:
        shutil.rmtree(folder)
    return 1 if wrong or report["unacknowledged"] else 0


def _measure(service: Service, arguments: argparse.Namespace) -> Json:
    counts = (arguments.kills, arguments.stops, arguments.redis_pauses)
    planned = plan(*counts, arguments.seconds_between, arguments.seed, arguments.cuts)
    distinct, caller, picture = forms(arguments.steps), Caller(service.url), _picture()
    wait_until(lambda: service.answers("worker"))
    _say("the service is ready; first each distinct edit, undisturbed")
    undisturbed = [_result(caller, caller.submit(form, picture)) for form in distinct]
    chaos = Chaos(service, arguments.seed)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(chaos.run, planned)
        ended = submit_all(caller, distinct, picture, arguments.edits, chaos.over)
        running.result()
    _say("all have ended; looking at each")
    all_found = [found(service, caller, *one) for one in ended]
    known = sum(1 for _ in service.redis.scan_iter("foi:edit:*"))
    return {
        "device": machine.describe(),
        "settings": {name: str(value) for name, value in vars(arguments).items() if name != "out"},
        "caveat": CAVEAT,
        "answers": dict(sorted(caller.answers.items())),
        "tracebacks": service.log.read_text().count("Traceback (most recent call last)"),
        "unacknowledged": known - len(distinct) - len(all_found),
        **summary(all_found, undisturbed, chaos.done, rounding=0 if arguments.in_flight == 1 else 1),
    }


def _result(caller: Caller, edit_id: str) -> bytes:
    record = caller.follow(edit_id)
    picture = caller.file(record["outputs"][0]["url"]) if record and record["outputs"] else None
    if picture is None:
        raise RuntimeError(f"the service cannot even do an edit without chaos: {record}")
    return picture


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__.split("\n\n")[0])
    parser.add_argument("--edits", type=int, default=400, help="to be acknowledged, at least")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--stops", type=int, default=2, help="of workers, past their lease")
    parser.add_argument("--redis-pauses", type=int, default=1)
    parser.add_argument("--cuts", type=int, default=8, help="between two round trips of a submit")
    parser.add_argument("--seconds-between", type=float, default=8, help="disturbances, on average")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--in-flight", type=int, default=4, help="FOI_MAX_IN_FLIGHT; 1 makes results exact to the byte")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--model", default=os.environ.get("FOI_MODEL", "demo"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def wait_until(condition: Callable[[], T | None], pause: float = 0.05) -> T:
    """The condition's first true value."""
    deadline = time.monotonic() + LIMIT_S
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {LIMIT_S} s")
        time.sleep(pause)
    return value


def _machine(report: Json) -> str:
    device, settings = report["device"], report["settings"]
    workers = f"{settings['workers']} workers with up to {settings['in_flight']} edits in a batch"
    return f"{device.get('gpu', device['cpu'])}, {device['cores']} CPU cores, {workers}"


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    shares = {"p50": 50, "p99": 99, "max": 100}
    return {name: round(float(np.percentile(values, share)), 3) for name, share in shares.items()}


def _picture() -> bytes:
    buffer = io.BytesIO()
    Image.open(ROOT / "demo/samples/scene.png").convert("RGB").resize((SIDE, SIDE)).save(buffer, "PNG")
    return buffer.getvalue()


def _command(pid: int) -> str:
    """Empty when it is dead, also where nobody has waited for it yet."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
