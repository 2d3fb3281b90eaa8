"""`python -m benchmarks.large`: what the largest edits that are allowed cost a worker, and the small ones beside them.

The worker's own task (store, engine, files) runs in a process of its own with the demo model, on an embedded Redis.
`pause`: a small edit of many steps runs while one picture of 40 MP with eight instructions is read, masked, decoded,
drawn and stored; the longest and the median time between two of the small one's steps, beside those without the large
one, and how long a second small edit took that came with the large one. `memory`: eight edits at once, each of 40 MP
and eight outputs with eight masks that the caller gave; the peak of resident memory.
"""

from __future__ import annotations

import argparse
import io
import itertools
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

from PIL import Image

from foi_core.batching import BatchingEngine, Capacity
from foi_core.checkpoint import load
from foi_core.engine import Engine
from foi_core.spec import EditSpec, SubInstruction
from foi_core.state import EditState
from jobs.blobs import BlobStore
from jobs.connection import connect
from jobs.queue import EditQueue
from jobs.records import UPLOAD, EditInput, EditRecord, Instruction, Submission, new_edit_id, now
from jobs.redis_server import running_redis
from jobs.repository import EditRepository
from jobs.settings import Settings
from worker.crew import Crew
from worker.reporter import Reporter

SIDE = 6324
"""40 MP."""
PARTS = 8
SMALL_STEPS = 150
SCENE = Path(__file__).parent.parent / "demo" / "samples" / "scene.png"


class Watched(Engine):
    """Remembers when each of the edit's steps ended whose seed is `seed`."""

    seed: int | None = None
    ends: list[float]

    def step(self, states: list[EditState]) -> None:
        super().step(states)
        if any(state.spec.seed == self.seed for state in states):
            self.ends.append(time.monotonic())


class Worker:
    """The crew of a worker in this process, and the callers of the edits."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.settings = settings
        self.redis = connect(url, decode=True)
        self.repository = EditRepository(self.redis, settings.retention_s)
        self.blobs, self.queue = BlobStore.of(settings), EditQueue(connect(url))
        self.engine = Watched(load("demo", "cpu"))
        reporter = Reporter(EditRepository(connect(url, decode=True), settings.retention_s))
        batching = BatchingEngine(self.engine, Capacity.measured(self.engine, 4), reporter.changed)
        self.crew = Crew(batching, reporter, f"large-{uuid.uuid4().hex}", settings, url, self.blobs)
        self.crew.start()

    def submit(self, picture: bytes, side: int, masks: bytes | None = None, **fields: object) -> str:
        edit_id, files = new_edit_id(), {}
        if masks is not None:
            files = {f"m{i}.png": self.blobs.put_input(edit_id, f"m{i}.png", masks, "image/png") for i in range(PARTS)}
        parts = [
            Instruction(text=f"make the {word} red", keyword=word, mask=f"m{i}.png" if masks else None)
            for i, word in enumerate(("ball", "box", "star", "sky", "grass", "tree", "sun", "house"))
        ]
        spec = EditSpec(tuple(SubInstruction(part.text, part.keyword) for part in parts), num_inference_steps=10)
        edit_input = EditInput.from_spec(spec, parts, width=side, height=side, seed=7, output_format="png")
        changed = edit_input.model_copy(update=fields)
        self.repository.create(
            Submission(
                id=edit_id,
                created_at=now(),
                input=changed,
                metadata=None,
                upload=self.blobs.put_input(edit_id, UPLOAD, picture, "image/png"),
                files=files,
            )
        )
        self.queue.enqueue(edit_id, "normal")
        return edit_id

    def record(self, edit_id: str) -> EditRecord:
        record = self.repository.get(edit_id)
        assert record is not None
        return record

    def ended(self, edit_id: str) -> float:
        """Waits for it; how long it took from its submission, in seconds."""
        while not (record := self.record(edit_id)).terminal:
            time.sleep(0.02)
        assert record.outcome is not None
        if record.status != "succeeded":
            raise SystemExit(f"an edit failed: {record.outcome.error}")
        return (record.outcome.completed_at - record.submission.created_at).total_seconds()


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def pause(worker: Worker, large: bytes) -> None:
    small = png(Image.open(SCENE).convert("RGB"))

    def gaps(beside: Callable[[], str] | None) -> list[float]:
        """Between the steps of a small edit; small edits follow each other until the large one is done."""
        found: list[float] = []
        big = None
        for seed in itertools.count(1000):
            worker.engine.seed, worker.engine.ends = seed, []
            edit = worker.submit(small, 128, num_inference_steps=SMALL_STEPS, seed=seed, strength=1.0)
            if beside is not None and big is None:
                while len(worker.engine.ends) < 5:
                    time.sleep(0.01)
                big, second = beside(), worker.submit(small, 128)
                print(f"a small edit that came with the large one: {worker.ended(second):.1f} s", flush=True)
            worker.ended(edit)
            found += [b - a for a, b in itertools.pairwise(worker.engine.ends)]
            if big is None or worker.record(big).terminal:
                break
        if big is not None:
            print(f"the large edit: {worker.ended(big):.1f} s", flush=True)
        return found

    print(f"a small edit with nothing beside it: {worker.ended(worker.submit(small, 128)):.1f} s", flush=True)
    for name, beside in (("alone", None), ("beside 40 MP", lambda: worker.submit(large, SIDE))):
        times = sorted(gaps(beside))
        print(
            f"between steps of a small edit, {name}: median {statistics.median(times) * 1000:.0f} ms, 99% "
            f"{times[int(len(times) * 0.99)] * 1000:.0f} ms, longest {times[-1] * 1000:.0f} ms ({len(times)} steps)",
            flush=True,
        )


def memory(worker: Worker, large: bytes, edits: int) -> None:
    mask = Image.new("L", (SIDE, SIDE))
    mask.paste(255, (SIDE // 4, SIDE // 4, SIDE // 2, SIDE // 2))
    given, done, peak = png(mask), Event(), [0]

    def look() -> None:
        while not done.wait(0.02):
            if (now := _resident()) > peak[0]:
                peak[0] = now
                print(f"\r{now} MiB", end="", file=sys.stderr, flush=True)

    before = _resident()
    watcher = Thread(target=look)
    watcher.start()
    try:
        ids = [worker.submit(large, SIDE, given, n=8, num_inference_steps=2) for _ in range(edits)]
        seconds = max(worker.ended(edit) for edit in ids)
    finally:
        done.set()
        watcher.join()
    found = f"resident {before} MiB before, {peak[0]} MiB at most; {seconds:.0f} s"
    print(f"{edits} edits of 40 MP, 8 outputs, 8 masks: {found}", flush=True)


def _resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--legs", default="pause,memory")
    parser.add_argument("--edits", type=int, default=8, help="at once, for the memory")
    arguments = parser.parse_args()
    large = png(Image.open(SCENE).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), max_pixels=SIDE * SIDE, hang_s=600)
        with running_redis(settings) as redis:
            worker = Worker(settings, redis.url)
            for leg in arguments.legs.split(","):
                if leg == "pause":
                    pause(worker, large)
                else:
                    memory(worker, large, arguments.edits)
            worker.crew.drain(5)


if __name__ == "__main__":
    main()
