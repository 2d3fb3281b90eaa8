"""`foi calibrate --model MODEL --data DIR`: the mask setting and the guidance scales that suit a checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.calibration import choice, sheet
from evaluation.calibration.settings import (
    GUIDANCE_SCALES,
    IMAGE_GUIDANCE_SCALES,
    Setting,
    Trials,
    edit_settings,
    mask_settings,
)
from evaluation.calibration.target import CHOSEN, Target, parse_choice
from evaluation.pictures.command import BAD_LINES, INTERRUPTED, OK, add_options, read_data, say, source, status
from evaluation.pictures.data import Item
from evaluation.pictures.measures import Judges
from evaluation.pictures.run import finished, run
from evaluation.pictures.scorers import Clip
from evaluation.pictures.store import Row, Store, write_picture
from evaluation.pictures.summary import Table, markdown, pictures_of, tabulate
from foi_core import SubInstruction
from foi_core.checkpoint import load
from foi_core.engine import Engine
from foi_core.spec import ModelDefaults

SHEET, REPORT = "calibration.png", "calibration.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 if lines were left out or edits failed (the rest is done); 2 if it could not start or go on; 130
    after Ctrl-C (the same command goes on from there)."""
    given = _parser().parse_args(arguments)
    try:
        return status(_calibrate if given.choose is None else _choose, given)
    except KeyboardInterrupt:
        say("stopped: what is done is kept, and the same command goes on from here")
        return INTERRUPTED


def _choose(given: argparse.Namespace) -> int:
    """Writes what the user has chosen; nothing is run."""
    target = _target(given)
    before = target.defaults()
    _tell(target.write(before, replace(before, **parse_choice(given.choose))))
    return OK


def _calibrate(given: argparse.Namespace) -> int:
    target, clip_source = _target(given), source(given, "clip")
    before = target.defaults()
    steps = before.num_inference_steps if given.steps is None else given.steps
    for setting in edit_settings(Setting(), before, given.guidance_scales, given.image_guidance_scales):
        setting.spec((SubInstruction("any"),), steps, given.seed)  # refuses what is out of range
    items, problems = read_data(given)
    run_ = _Run.start(given, target.model, clip_source, steps)

    masks = mask_settings(before)
    failed = run_.through(items, masks, Judges({}), "masks, one step each")
    items = [item for item in items if any(run_.store.find(item, setting.name) for setting in masks)]
    if not items:
        return BAD_LINES
    mask_table, mask_text = run_.tabulate(items, masks)
    best_masks = choice.best_masks(mask_table, [setting for setting in masks if setting.preset != "paper"])
    used = best_masks.setting if best_masks else masks[0]

    edits = edit_settings(used, before, given.guidance_scales, given.image_guidance_scales)
    failed += run_.through(items, edits, run_.judges, f"edits of {steps} steps")
    edit_table, edit_text = run_.tabulate(items, edits)
    best_scales = choice.best_scales(edit_table, edits)

    found = [one for one in (best_masks, best_scales) if one]
    heading = f"Edits, with the masks of {used.label}: s_T is guidance_scale, s_I image_guidance_scale"
    write_picture(
        sheet.draw(items, run_.store, masks, edits, [one.setting for one in found], heading), given.work / SHEET
    )
    lines = choice.in_words(best_masks, best_scales, choice.best_masks(mask_table, [used, masks[-1]]), edits)
    text = f"## Masks\n\n{mask_text}\n## {heading}\n\n{edit_text}\n" + "".join(f"- {line}\n" for line in lines)
    (given.work / REPORT).write_text(f"# Calibration of {target.model}\n\n{text}", encoding="utf-8")
    print(text, end="", flush=True)
    _say_what_to_look_at(given.work, len(items))
    if found:
        _tell(target.write(before, _with(before, best_masks, best_scales)))
    _say_what_to_choose(found)
    return BAD_LINES if problems or failed else OK


@dataclass(frozen=True)
class _Run:
    """A loaded model and the folder that its trials go to."""

    engine: Engine
    store: Store
    judges: Judges
    steps: int
    seed: int

    @classmethod
    def start(cls, given: argparse.Namespace, model: str, clip_source: str | None, steps: int) -> _Run:
        loaded = load(model, given.device, given.dtype, safety_checker="off")
        loaded.defaults = ModelDefaults()  # so that a threshold of None is the preset's own
        engine = Engine(loaded)
        settings = {"model": model, "device": engine.device, "dtype": engine.dtype, "steps": steps, "seed": given.seed}
        store = Store(given.work, settings)
        clip = None if clip_source is None else Clip("--clip", clip_source, engine.device)
        judges = Judges({} if clip_source is None else {"clip": clip_source}, clip=clip)
        engine.warm_up()  # else the first edit's seconds would hold what is done once
        return cls(engine, store, judges, steps, given.seed)

    def through(self, items: Sequence[Item], settings: Sequence[Setting], judges: Judges, what: str) -> int:
        """Tries every setting on every picture, as far as that is not done; how many trials have failed."""
        say(f"{what}: {len(items)} pictures, {len(settings)} settings")
        by_name = {setting.name: setting for setting in settings}
        trials = Trials(self.engine, self.steps, self.seed, by_name)
        return len(run(items, list(by_name), trials, judges, self.store))

    def tabulate(self, items: Sequence[Item], settings: Sequence[Setting]) -> tuple[Table, str]:
        """The means by the settings' names, and as Markdown by their labels."""
        labels = {setting.name: setting.label for setting in settings}
        rows: list[Row] = finished(items, list(labels), self.store)
        table, counts = tabulate(rows), pictures_of(rows)
        edited = settings[0].scales is not None  # then all have the same masks
        shown = {
            labels[name]: {measure: mean for measure, mean in means.items() if not (edited and measure == "mask_iou")}
            for name, means in table.items()
        }
        return table, markdown(shown, {labels[name]: count for name, count in counts.items()}, "setting")


def _with(before: ModelDefaults, masks: choice.Choice | None, scales: choice.Choice | None) -> ModelDefaults:
    chosen: dict[str, Any] = {}
    if masks:
        chosen["threshold"] = masks.setting.threshold
    if scales and scales.setting.scales:
        chosen |= scales.setting.scales._asdict()
    return replace(before, **chosen)


def _say_what_to_look_at(work: Path, pictures: int) -> None:
    some = f" (the first {sheet.SHOWN} of {pictures} pictures)" if pictures > sheet.SHOWN else ""
    say(f"look at {work / SHEET}{some}; the tables are in {work / REPORT}")


def _say_what_to_choose(found: Sequence[choice.Choice]) -> None:
    open_ones = list(CHOSEN)
    for one in found:
        for name in ("threshold",) if one.setting.scales is None else CHOSEN[1:]:
            open_ones.remove(name)
    if open_ones:
        kept = "nothing is written" if not found else "that stays as it was"
        say(
            f"no figures tell the best of {', '.join(open_ones)} (true masks do for threshold; targets, or --clip with "
            f"caption and target_caption, for the scales), so {kept}. Choose by the sheet, with the same command and "
            "--choose, naming what shall change: --choose threshold=0.4,guidance_scale=7.5"
        )


def _target(given: argparse.Namespace) -> Target:
    model = source(given, "model")
    assert model is not None
    return Target.of(model, given.out, given.work)


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        say(line)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="foi calibrate", description=__doc__)
    add_options(parser)
    parser.add_argument(
        "--work", type=Path, default=Path("out/calibration"), metavar="DIR", help="default: out/calibration"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: foi.json in the model's folder")
    parser.add_argument("--choose", metavar="NAME=VALUE,...", help=f"write this and run nothing: {', '.join(CHOSEN)}")
    for option, values in (
        ("--guidance-scales", GUIDANCE_SCALES),
        ("--image-guidance-scales", IMAGE_GUIDANCE_SCALES),
    ):
        tried = " ".join(f"{value:g}" for value in values)
        parser.add_argument(option, type=float, nargs="+", default=values, metavar="N", help=f"default: {tried}")
    return parser
