"""Which setting is best by figures, where figures can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from evaluation.calibration.settings import Setting
from evaluation.pictures.summary import Table

SAME_IOU = 0.01
"""Mean IoUs that differ by no more are taken as the same: a few pictures tell no more."""
SAME_SHARE = 0.05
"""So are mean errors and directions that differ by no more than this share of the best."""


class Choice(NamedTuple):
    """A setting, and why."""

    setting: Setting
    reason: str


def best_masks(table: Table, settings: Sequence[Setting]) -> Choice | None:
    """The highest IoU with the true masks; the first of `settings`, which holds so far, where no other is clearly
    better. None where there is no truth."""
    scores = _means(table, settings, "mask_iou")
    if not scores:
        return None
    top = max(scores, key=lambda setting: scores[setting])
    best = _first_or(top, settings[0], scores, SAME_IOU)
    reason = f"mean IoU with the true masks {scores[best]:.3f}"
    return Choice(best, reason if best == top else f"{reason}; {top.label} has {scores[top]:.3f}, hardly more")


def best_scales(table: Table, settings: Sequence[Setting]) -> Choice | None:
    """By the error to the targets where there are any, as above; else by CLIP-D, which says whether the change is the
    one that was asked for: of those that are the same in it, the one that keeps most of the picture (CLIP-I).

    None where neither is there, or no edit went the captions' way. Change outside alone would choose to do nothing.
    """
    errors = _means(table, settings, "mae_target")
    if errors:
        least = min(errors, key=lambda setting: errors[setting])
        scores = {setting: -error for setting, error in errors.items()}
        best = _first_or(least, settings[0], scores, SAME_SHARE * errors[least])
        return Choice(best, f"mean error to the targets {errors[best]:.2f} grey levels")
    directions, kept = _means(table, settings, "clip_d"), _means(table, settings, "clip_i")
    if not directions or max(directions.values()) <= 0:
        return None
    close = [s for s, d in directions.items() if d >= max(directions.values()) * (1 - SAME_SHARE)]
    best = max(close, key=lambda setting: kept[setting])
    return Choice(best, f"mean CLIP-D {directions[best]:.4f}, CLIP-I {kept[best]:.4f}")


def in_words(
    masks: Choice | None, scales: Choice | None, of_all_masks: Choice | None, edits: Sequence[Setting]
) -> list[str]:
    """What the figures say. `masks` is the best that foi.json can name, `of_all_masks` the best of that and the
    preset "paper", which foi.json cannot name; `edits` are all scales that were tried."""
    lines = []
    if masks:
        lines.append(f"best masks: {masks.setting.label} ({masks.reason})")
    if of_all_masks and of_all_masks.setting.preset == "paper":
        lines.append(
            f"preset paper has better masks ({of_all_masks.reason}). foi.json cannot name a preset: give preset=paper "
            "with each edit"
        )
    if scales:
        lines += [f"best scales: {scales.setting.label} ({scales.reason})", *_at_an_end(scales.setting, edits)]
    return lines


def _at_an_end(best: Setting, edits: Sequence[Setting]) -> list[str]:
    """Where a better value may lie beyond those that were tried."""
    assert best.scales is not None
    tried = zip(*(edit.scales for edit in edits if edit.scales), strict=True)
    return [
        f"{name} {value:g} is the {'lowest' if value == min(values) else 'highest'} that was tried: try others with "
        f"--{name.replace('_', '-')}s"
        for name, value, values in zip(best.scales._fields, best.scales, tried, strict=True)
        if min(values) < max(values) and value in (min(values), max(values))
    ]


def _means(table: Table, settings: Sequence[Setting], measure: str) -> dict[Setting, float]:
    means = {setting: table.get(setting.name, {}).get(measure) for setting in settings}
    return {setting: mean.mean for setting, mean in means.items() if mean is not None}


def _first_or(best: Setting, first: Setting, scores: Mapping[Setting, float], slack: float) -> Setting:
    return first if first in scores and scores[first] >= scores[best] - slack else best
