"""Which setting the figures choose, where they can."""

from __future__ import annotations

from evaluation.calibration.choice import Choice, best_masks, best_scales, in_words
from evaluation.calibration.settings import Scales, Setting, edit_settings, mask_settings
from evaluation.pictures.summary import Mean, Table
from foi_core import ModelDefaults

OWN = ModelDefaults()
MASKS = mask_settings(OWN)
EDITS = edit_settings(Setting(), OWN, (3.0, 5.0, 7.5), (1.2, 1.5))


def table(figures: dict[Setting, dict[str, float]]) -> Table:
    return {s.name: {name: Mean(value, value, value, 6) for name, value in of.items()} for s, of in figures.items()}


def edit(guidance: float, image_guidance: float) -> Setting:
    return Setting(scales=Scales(guidance, image_guidance))


def chosen(choice: Choice | None) -> Setting:
    assert choice is not None
    return choice.setting


def test_the_masks_nearest_to_the_truth_are_chosen() -> None:
    figures = {s: {"mask_iou": 0.8 if s.threshold == 0.65 else 0.3} for s in MASKS}
    assert chosen(best_masks(table(figures), MASKS)) == Setting(0.65)


def test_the_models_own_masks_stay_where_no_others_are_clearly_better() -> None:
    figures = {s: {"mask_iou": 0.705 if s.threshold == 0.65 else 0.7} for s in MASKS}
    assert chosen(best_masks(table(figures), MASKS)) == Setting()
    recommended = mask_settings(ModelDefaults(threshold=(0.3, 0.4)))
    assert chosen(best_masks(table({s: {"mask_iou": 0.7} for s in recommended}), recommended)) == Setting((0.3, 0.4))


def test_of_masks_that_are_clearly_better_the_best_are_chosen() -> None:
    figures = {s: {"mask_iou": 0.3} for s in MASKS} | {
        Setting(0.5): {"mask_iou": 0.795},
        Setting(0.65): {"mask_iou": 0.8},
    }
    assert chosen(best_masks(table(figures), MASKS)) == Setting(0.65)


def test_without_true_masks_no_masks_are_chosen() -> None:
    assert best_masks(table({s: {"seconds": 1.0} for s in MASKS}), MASKS) is None


def test_where_there_are_targets_the_scales_nearest_to_them_are_chosen() -> None:
    figures = {s: {"mae_target": 9.0, "clip_d": 0.2, "clip_i": 0.9} for s in EDITS}
    figures[edit(3, 1.2)] = {"mae_target": 4.0, "clip_d": 0.1, "clip_i": 0.5}
    assert chosen(best_scales(table(figures), EDITS)) == edit(3, 1.2)


def test_the_models_own_scales_stay_where_no_others_are_clearly_nearer_to_the_targets() -> None:
    figures = {s: {"mae_target": 9.0} for s in EDITS} | {edit(3, 1.2): {"mae_target": 8.7}}
    assert chosen(best_scales(table(figures), EDITS)) == edit(7.5, 1.5)


def test_of_scales_that_follow_the_captions_alike_the_one_that_keeps_most_is_chosen() -> None:
    figures = {s: {"clip_d": 0.05, "clip_i": 0.99} for s in EDITS}
    figures[edit(7.5, 1.2)] = {"clip_d": 0.200, "clip_i": 0.80}
    figures[edit(5, 1.5)] = {"clip_d": 0.195, "clip_i": 0.85}
    assert chosen(best_scales(table(figures), EDITS)) == edit(5, 1.5)


def test_doing_nothing_is_never_chosen_because_it_changes_nothing_outside() -> None:
    figures = {s: {"mae_outside": s.scales.guidance_scale, "clip_i": 0.9} for s in EDITS if s.scales}
    assert best_scales(table(figures), EDITS) is None
    assert best_scales(table({s: {"clip_d": -0.01, "clip_i": 0.9} for s in EDITS}), EDITS) is None


def test_what_foi_json_cannot_say_is_said_in_words() -> None:
    best, paper = Choice(Setting(0.5), "mean IoU 0.5"), Choice(Setting(preset="paper"), "mean IoU 0.8")
    (first, second) = in_words(best, None, paper, EDITS)
    assert "threshold 0.5" in first
    assert "preset paper has better masks (mean IoU 0.8)" in second
    assert "preset=paper" in second


def test_a_best_value_at_an_end_of_those_tried_is_told() -> None:
    lines = in_words(None, Choice(edit(3, 1.5), ""), None, edit_settings(Setting(), OWN, (3.0, 5.0), (1.2, 1.5, 2.0)))
    assert lines[1:] == ["guidance_scale 3 is the lowest that was tried: try others with --guidance-scales"]
