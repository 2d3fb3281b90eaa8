"""`python -m benchmarks.gpu`: the engine's speed on a GPU, beside diffusers' own pipeline on the same one.

Random finite weights of InstructPix2Pix's real shape (or --model), one process. Each leg takes at most ten minutes and
is kept as soon as it is done: a run that was stopped goes on from there, and repeats only what failed. Writes gpu.json,
gpu.md and gpu.png. `--device cpu --tiny --out FOLDER` checks that the script runs; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from benchmarks.gpu import plots, report
from benchmarks.gpu.bench import Bench, Leg, NeedsCuda, Settings
from benchmarks.gpu.cold import cold
from benchmarks.gpu.floor import roof
from benchmarks.gpu.inside import host, idle, memory, neighbours
from benchmarks.gpu.load import load
from benchmarks.gpu.results import OtherRun, Results
from benchmarks.gpu.speed import mixed, single, single_large, step, throughput
from benchmarks.gpu.subjects import EXECUTIONS, Subjects, checkpoint
from benchmarks.gpu.timing import reason, say
from benchmarks.machine import describe
from foi_core.model import choose_dtype

LEGS: dict[str, Leg] = {
    "roof": roof,
    "single": single,
    "step": step,
    "throughput": throughput,
    "mixed": mixed,
    "load": load,
    "host": host,
    "idle": idle,
    "neighbours": neighbours,
    "memory": memory,
    "single-large": single_large,
    "cold": cold,
}
"""In this order: the single edit chooses the execution of the others, and those that share subjects are neighbours."""
OUT = Path("benchmarks/results")
SIDES, TINY_SIDES = (512, 768), (64, 128)
QUICK = 3
FAILED, REFUSED = 1, 2


def main(arguments: list[str] | None = None) -> int:
    """0: all figures are there; 1: some legs failed; 2: it cannot run here."""
    parser = _parser()
    args = parser.parse_args(arguments)
    out: Path = args.out or OUT
    if args.tiny and (args.out is None or out.resolve() == OUT.resolve()):
        return _refuse(f"--tiny checks the script: its figures never go to {OUT}; give --out another folder")
    if args.device == "cpu" and not args.tiny:
        return _refuse("figures of a CPU say nothing about a GPU; --device cpu --tiny --out FOLDER checks the script")
    if args.device != "cpu" and not torch.cuda.is_available():
        return _refuse("this torch sees no CUDA device; --device cpu --tiny --out FOLDER checks the script without one")
    device = torch.device(args.device)
    if args.execution not in (None, *EXECUTIONS[device.type]):
        return _refuse(f"--execution: on {device.type} there is {', '.join(EXECUTIONS[device.type])}")
    settings = _settings(args)
    try:
        head = {"machine": versions(device), "settings": settings.as_head()}
        results = Results(out / "gpu.json", head, fresh=args.fresh)
    except OtherRun as error:
        return _refuse(str(error))
    left = [leg for leg in args.legs if not results.done(leg)]
    if left:
        with tempfile.TemporaryDirectory() as folder:
            _run(left, settings, results, device, Path(folder))
    text = report.table(results, judged=not args.tiny)
    (out / "gpu.md").write_text(text)
    plots.draw(results, out / "gpu.png")
    print(text)
    return FAILED if any(results.problems(leg) for leg in args.legs) else 0


def _run(legs: list[str], settings: Settings, results: Results, device: torch.device, work: Path) -> None:
    dtype = choose_dtype("auto", device)
    folder = checkpoint(settings.model, tiny=settings.tiny, work=work, device=device, dtype=dtype)
    bench = Bench(settings, results, Subjects(folder, work, device, dtype, settings.compile_mode))
    for leg in legs:
        begun = time.monotonic()
        say(f"{leg} ...")
        bench.begin()
        try:
            record = LEGS[leg](bench)
        except NeedsCuda:
            record = {"skipped": "needs CUDA"}
        except Exception as error:  # whatever stops one leg, the others have their own figures
            record = {"error": reason(error)}
            say(f"  failed: {record['error']}")
        record["leg_seconds"] = round(time.monotonic() - begun, 1)
        results.put(leg, record)
        bench.subjects.release(keep=bench.execution)


def versions(device: torch.device) -> dict[str, str | int]:
    """The machine, and everything whose version can change a figure."""
    found = describe()
    for package in ("diffusers", "transformers", "triton"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    found["device"] = device.type
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
        found["CUDA"] = str(torch.version.cuda)
        found["cuDNN"] = torch.backends.cudnn.version() or "none"
        found["driver"] = _driver()
    else:
        found.pop("gpu", None)
    return found


def _driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return "not told: no nvidia-smi"
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    told = subprocess.run(query, capture_output=True, text=True, check=True)
    return told.stdout.splitlines()[0].strip()


def _settings(args: argparse.Namespace) -> Settings:
    return Settings(
        model=args.model,
        tiny=args.tiny,
        steps=args.steps,
        repeats=QUICK if args.quick else args.repeats,
        warm_ups=1 if args.tiny else 3,
        execution=args.execution,
        compile_mode=args.compile_mode,
        sides=TINY_SIDES if args.tiny else SIDES,
        arrivals=4 if args.tiny else 10 if args.quick else 40,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a folder in diffusers' layout, or a model id; default: random weights")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="a tiny model: checks that the script runs, needs --out")
    parser.add_argument("--legs", type=_legs, default=list(LEGS), help=f"default, in this order: {','.join(LEGS)}")
    parser.add_argument("--fresh", action="store_true", help="measure all anew")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} repeats, and fewer edits under load")
    parser.add_argument("--execution", help="of our engine in most legs; default: the fastest for a single edit")
    parser.add_argument("--compile-mode", default="reduce-overhead", choices=("reduce-overhead", "max-autotune"))
    parser.add_argument("--out", type=Path, help=f"default: {OUT}")
    return parser


def _legs(text: str) -> list[str]:
    asked = text.split(",")
    if unknown := [leg for leg in asked if leg not in LEGS]:
        raise argparse.ArgumentTypeError(f"no leg {', '.join(unknown)}; there are {', '.join(LEGS)}")
    return [leg for leg in LEGS if leg in asked]


def _refuse(why: str) -> int:
    say(f"benchmarks.gpu: {why}")
    return REFUSED


if __name__ == "__main__":
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
    sys.exit(main())
