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
from evaluation.ideas.self_attention import SelfAttentionSpread
from evaluation.scenes import pictures, report, results, rows
from evaluation.scenes.cases import Case, cases
from evaluation.scenes.run import STEPS, Task, read, run
from foi_core.engine import Engine

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
    parser.add_argument("--rows", nargs="+", help="these rows alone (names as in the tables)")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="bfloat16", help="of the networks (default %(default)s, the fastest)")
    args = parser.parse_args()
    engine = Engine.load(args.model, args.device, args.dtype)
    if args.report:
        draw(engine)
        return
    watch_self_attention(engine)
    path = WORK / f"{weights_digest(engine)}-{args.dtype}.jsonl"
    if args.quick:
        print(report.short(run(engine, tasks(rows.QUICK, cases(REPORTED_SEED, QUICK_COUNTS), 1), path)))
    elif args.tuning:
        chosen = cases(TUNING_SEED, COUNTS)
        print(report.short(run(engine, tasks(named(args.rows), chosen, args.samples), path)))
    else:
        whole(engine, path, args)


def whole(engine: Engine, path: Path, args: argparse.Namespace) -> None:
    """The committed set: first one seed of everything, then the others."""
    reported, swept = cases(REPORTED_SEED, COUNTS), cases(REPORTED_SEED, DIRECTION_COUNTS)
    wanted = [
        *tasks(named(args.rows), reported, 1),
        *([] if args.rows else tasks(rows.DIRECTIONS, swept, 1)),
        *tasks(named(args.rows), reported, args.samples),
    ]
    try:
        run(engine, list(dict.fromkeys(wanted)), path)
    finally:
        keep(engine, path, args.dtype, reported, swept)
    draw(engine)


def draw(engine: Engine) -> None:
    """Tables, plots and pictures from the committed results; the pictures' edits are made anew."""
    records, _ = results.load(report.RESULTS / "rows.json")
    pictures.galleries(engine, records, cases(REPORTED_SEED, COUNTS), report.RESULTS)
    matrices = pictures.interference(engine, report.RESULTS)
    rounded = {name: matrix.round(2).tolist() for name, matrix in matrices.items()}
    (report.RESULTS / "interference.json").write_text(json.dumps(rounded) + "\n")
    report.write()


def keep(engine: Engine, path: Path, dtype: str, reported: list[Case], swept: list[Case]) -> None:
    """What has been made so far, as committed results."""
    done = read(path)
    meta = provenance(engine, dtype)
    for name, wanted, of in (("rows", rows.ALL, reported), ("directions", rows.DIRECTIONS, swept)):
        order = {row.name: i for i, row in enumerate(wanted)}
        seeds = {case.seed for case in of}
        records = [r for r in done if r["row"] in order and r["case"] in seeds]
        records.sort(key=lambda r: (order[r["row"]], r["sample"], r["case"]))
        results.save(report.RESULTS / f"{name}.json", records, meta, [results.about(case) for case in of])


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
    for network in (model.unet, model.vae, model.text_encoder):
        for name, tensor in sorted(network.state_dict().items()):
            digest.update(name.encode() + tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def provenance(engine: Engine, dtype: str) -> dict[str, Any]:
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return {
        "commit": commit.stdout.strip(),
        "model": engine.model,
        "weights": weights_digest(engine),
        "defaults": json.loads(json.dumps(vars(engine.defaults))),
        "device": engine.device,
        "processor": platform.machine(),
        "dtype": dtype,
        "torch": torch.__version__,
        "num_inference_steps": STEPS,
        "scenes": {"first_seed": REPORTED_SEED, "counts": COUNTS, "direction_counts": DIRECTION_COUNTS},
    }


if __name__ == "__main__":
    main()
