"""`python -m evaluation --data DIR --model MODEL`: FoI and baselines on the user's own pictures, in one table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from evaluation.pictures.command import BAD_LINES, INTERRUPTED, OK, add_options, read_data, say, source, status
from evaluation.pictures.data import Item
from evaluation.pictures.diffedit import DiffEdit
from evaluation.pictures.measures import Judges
from evaluation.pictures.methods import METHODS, Editor, Method, edit_spec
from evaluation.pictures.problems import UsageError
from evaluation.pictures.run import finished, run
from evaluation.pictures.scorers import Clip, Dino
from evaluation.pictures.store import Store
from evaluation.pictures.summary import write_summary
from foi_core import SubInstruction
from foi_core.engine import Engine

JUDGES = ("clip", "dino", "pickscore")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 if lines were left out or edits failed (the rest is done); 2 if it could not start or go on; 130
    after Ctrl-C (the same command goes on from there)."""
    return status(_evaluate, _parser().parse_args(arguments))


def _evaluate(given: argparse.Namespace) -> int:
    sources = {name: source(given, name) for name in ("model", "diffedit_model", *JUDGES)}
    methods = _methods(given)
    edit_spec("foi", (SubInstruction("any"),), given.steps, given.seed)  # refuses what is out of range
    items, problems = read_data(given)
    _tell_what_is_missing(given, methods, items)
    engine = Engine.load(str(sources["model"]), given.device, given.dtype, safety_checker="off")
    settings = {"model": sources["model"], "device": engine.device, "dtype": engine.dtype, "steps": given.steps}
    settings |= {"seed": given.seed} | ({"diffedit_model": sources["diffedit_model"]} if "diffedit" in methods else {})
    store = Store(given.out, settings)
    diffedit = DiffEdit(str(sources["diffedit_model"]), engine.device) if "diffedit" in methods else None
    editor = Editor(engine, given.steps, given.seed, diffedit)
    judges = _judges({name: found for name in JUDGES if (found := sources[name])}, engine.device)
    interrupted = False
    try:
        engine.warm_up()  # else the first edit's seconds would hold what is done once
        failed = run(items, methods, editor, judges, store)
    except KeyboardInterrupt:
        interrupted, failed = True, []
        say("stopped: what is done is kept, and the same command goes on from here")
    rows = finished(items, methods, store)
    if rows:
        print(write_summary(rows, given.out), end="")
        say(f"pictures, results.jsonl, summary.md and summary.json are in {given.out}")
    if interrupted:
        return INTERRUPTED
    return BAD_LINES if problems or failed else OK


def _methods(given: argparse.Namespace) -> tuple[Method, ...]:
    """Those asked for, else all that can be run."""
    if "diffedit" in (given.methods or ()) and given.diffedit_model is None:
        raise UsageError("diffedit needs a text-to-image model: give --diffedit-model")
    if given.diffedit_model is not None and given.steps == 1:
        raise UsageError("diffedit needs at least 2 steps: it takes its mask half way")
    possible = tuple(m for m in METHODS if m != "diffedit" or given.diffedit_model is not None)
    return tuple(m for m in METHODS if m in given.methods) if given.methods else possible


def _judges(sources: dict[str, str], device: str) -> Judges:
    return Judges(
        sources,
        clip=Clip("--clip", sources["clip"], device) if "clip" in sources else None,
        dino=Dino("--dino", sources["dino"], device) if "dino" in sources else None,
        pickscore=Clip("--pickscore", sources["pickscore"], device) if "pickscore" in sources else None,
    )


def _tell_what_is_missing(given: argparse.Namespace, methods: Sequence[Method], items: Sequence[Item]) -> None:
    absent = [f"--{name}" for name in JUDGES if getattr(given, name) is None]
    if absent:
        say(f"no weights given for {', '.join(absent)}: the table goes without these measures")
    without = sum(item.caption is None or item.target_caption is None for item in items)
    if without and ("diffedit" in methods or given.clip is not None):
        say(f"{without} of {len(items)} lines have no caption and target_caption: no CLIP-D, no diffedit")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m evaluation", description=__doc__)
    add_options(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("out/evaluation"), metavar="DIR", help="default: out/evaluation"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, metavar="METHOD", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--dino", metavar="DIR_OR_ID", help="DINO or DINOv2, for DINO-I")
    parser.add_argument("--pickscore", metavar="DIR_OR_ID", help="PickScore, judged by target_caption")
    parser.add_argument("--diffedit-model", metavar="DIR_OR_ID", help="text-to-image model, for the row diffedit")
    return parser
