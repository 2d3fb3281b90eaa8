"""The paper's claims and the ideas past it, on scenes with ground truth: `python -m evaluation.scenes`.

Resumes after an interruption: run the same command again. Edits are kept in out/eval as they are made; what is there
goes to evaluation/results, with the tables and plots made from it. `--report` makes those anew.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import torch

from demo.data import REPORTED_SEED, TUNING_SEED
from demo.scenes import WORLDS
from evaluation.ideas.self_attention import SelfAttentionSpread
from evaluation.scenes import pictures, report, results, rows
from evaluation.scenes.cases import Case, cases
from evaluation.scenes.results import Record
from evaluation.scenes.run import STEPS, Task, append, key, read, run
from foi_core.checkpoint import SLOW
from foi_core.engine import Engine
from foi_core.model import DTYPES, choose_device, slowdown
from foi_core.spec import PRESETS

ROOT = Path(__file__).parents[2]
WORK = ROOT / "out" / "eval"
COUNTS = {1: 150, 2: 60, 3: 60, 4: 30}
DIRECTION_COUNTS = {1: 30, 2: 30}
QUICK_COUNTS = {1: 8, 2: 4}
SAMPLES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few scenes and rows, and the short table (a minute)")
    parser.add_argument(
        "--report", action="store_true", help="only the tables, plots and pictures, from the committed results"
    )
    parser.add_argument("--tuning", action="store_true", help="the scenes for choosing settings; nothing is committed")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="seeds a scene (default %(default)s)")
    parser.add_argument("--rows", nargs="+", help="these rows alone, and the short table; nothing is committed")
    counts = list(COUNTS.values())
    parser.add_argument(
        "--scenes", nargs=4, type=int, default=counts, help=f"of --rows, with 1 to 4 instructions (default {counts})"
    )
    parser.add_argument("--world", choices=WORLDS, default="whole", help="of --rows and --tuning (default whole)")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="default: evaluation/results")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--dtype", default="auto", help="auto (of a whole run: that of the results which it goes on from), float32, ..."
    )
    args = parser.parse_args()
    if args.world != "whole" and not (args.rows or args.tuning):
        parser.error("--world goes with --rows or --tuning: what is committed is of the whole world")
    parts = args.quick or args.tuning or args.rows or args.report
    dtype = args.dtype if parts else precision(args.dtype, args.device, args.out)
    engine = Engine.load(args.model, args.device, dtype, safety_checker="off")
    watch_self_attention(engine)
    meta = provenance(engine, engine.dtype)
    path = WORK / args.world / f"{meta['digest']}.jsonl"
    if args.quick:
        print(report.short(run(engine, tasks(rows.QUICK, cases(REPORTED_SEED, QUICK_COUNTS), 1), path)))
    elif args.tuning or args.rows:
        first = TUNING_SEED if args.tuning else REPORTED_SEED
        chosen = cases(first, {k: count for k, count in enumerate(args.scenes, start=1) if count}, WORLDS[args.world])
        print(report.short(run(engine, tasks(named(args.rows), chosen, args.samples), path)))
    elif args.report:
        draw(engine, args.out)
    else:
        whole(engine, meta, path, args.samples, args.out)
        draw(engine, args.out)


def precision(asked: str, device: str, out: Path) -> str:
    """`asked`; for "auto" that of the results in `out`, since those of two precisions are never mixed. Exits where this
    device computes that one slowly."""
    file = out / "rows.json"
    if asked != "auto" or not file.exists():
        return asked
    made_in = str(results.load(file)[1]["dtype"])
    if choose_device(device).type == "cpu" and (times := slowdown(DTYPES[made_in])) > SLOW:
        sys.exit(
            f"{file} was made in {made_in}, which this CPU computes {times:.0f} times slower than "
            f"float32: give another --out to make all results in float32, or --dtype {made_in} to go on slowly"
        )
    return made_in


def whole(engine: Engine, meta: dict[str, Any], path: Path, samples: int, out: Path) -> None:
    """The committed set: first one seed of everything, then the others. What is in `out` already is not made again."""
    reported, swept = cases(REPORTED_SEED, COUNTS), cases(REPORTED_SEED, DIRECTION_COUNTS)
    known = {key(record) for record in read(path)}
    for file in (out / "rows.json", out / "directions.json"):
        if file.exists():
            committed, made_with = results.load(file)
            if made_with["digest"] != meta["digest"]:
                sys.exit(f"{file} was made with other weights or settings: remove {out}, or give another --out")
            append(path, [record for record in committed if key(record) not in known])
    wanted = [
        *tasks(rows.ALL, reported, 1),
        *tasks(rows.DIRECTIONS, swept, 1),
        *tasks(rows.ALL, reported, samples),
    ]
    try:
        run(engine, list({task.key: task for task in wanted}.values()), path)
    finally:
        keep(read(path), meta, reported, swept, out)


def keep(done: list[Record], meta: dict[str, Any], reported: list[Case], swept: list[Case], out: Path) -> None:
    """What has been made so far, as files to commit."""
    for name, wanted, of in (("rows", rows.ALL, reported), ("directions", rows.DIRECTIONS, swept)):
        order = {row.name: i for i, row in enumerate(wanted)}
        seeds = {case.seed for case in of}
        records = [r for r in done if r["row"] in order and r["case"] in seeds]
        records.sort(key=lambda r: (order[r["row"]], r["sample"], r["case"]))
        results.save(out / f"{name}.json", records, meta, [results.about(case) for case in of])


def draw(engine: Engine, out: Path) -> None:
    """Tables, plots and pictures from the files in `out`; the pictures' edits are made anew."""
    records, _ = results.load(out / "rows.json")
    pictures.galleries(engine, records, cases(REPORTED_SEED, COUNTS), out)
    matrices = pictures.interference(engine, out)
    rounded = {name: matrix.round(2).tolist() for name, matrix in matrices.items()}
    (out / "interference.json").write_text(json.dumps(rounded) + "\n")
    report.write(out)


def named(names: list[str] | None) -> list[rows.Row]:
    if not names:
        return list(rows.ALL)
    known = {row.name: row for row in (*rows.ALL, *rows.DIRECTIONS)}
    if unknown := set(names) - known.keys():
        sys.exit(f"unknown rows {sorted(unknown)}; there are: {', '.join(known)}")
    return [known[name] for name in names]


def tasks(of: list[rows.Row] | tuple[rows.Row, ...], chosen: list[Case], samples: int) -> list[Task]:
    """Seed by seed, so that an interrupted run has whole seeds."""
    return [Task(row, case, sample) for sample, row, case in product(range(samples), of, chosen)]


def watch_self_attention(engine: Engine) -> None:
    for row in rows.ALL:
        if row.recipe is not None and isinstance(row.recipe.mask_source, SelfAttentionSpread):
            row.recipe.mask_source.install(engine)


def weights_digest(engine: Engine) -> str:
    """Twelve hex digits that change with any weight of the model."""
    model = engine._model
    digest = hashlib.sha256()
    for network in (model.unet.source, model.vae, model.text_encoder):
        for name, tensor in sorted(network.state_dict().items()):
            digest.update(name.encode() + tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def provenance(engine: Engine, dtype: str) -> dict[str, Any]:
    """What the edits are made with. `digest` changes with whatever changes all of them: weights, precision, defaults,
    presets, steps. The code of one row is not in it: give a changed row another name."""
    changed = _git("status", "--porcelain", "--", ".", ":!evaluation/results")
    made_with = {
        "weights": weights_digest(engine),
        "dtype": dtype,
        "device": engine.device,
        "num_inference_steps": STEPS,
        "defaults": vars(engine.defaults),
        "presets": {name: vars(settings) for name, settings in PRESETS.items()},
    }
    return {
        "commit": _git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else ""),
        "digest": hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()[:12],
        **made_with,
        "processor": platform.machine(),
        "torch": torch.__version__,
        "scenes": {"first_seed": REPORTED_SEED, "single": COUNTS[1], "of_2_to_4": [COUNTS[k] for k in (2, 3, 4)]},
        "direction_scenes": list(DIRECTION_COUNTS.values()),
    }


def _git(*arguments: str) -> str:
    """Its output; empty outside a checkout."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
