"""What may be asked for, and how a bad value is answered."""

import subprocess
import sys

import pytest

from foi_core import EditSpec, InvalidParameter, ModelDefaults, SubInstruction
from foi_core.spec import PRESETS

ONE = (SubInstruction("make the hat black"),)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_inference_steps", 0),
        ("num_inference_steps", 151),
        ("num_inference_steps", 10.5),
        ("num_inference_steps", True),
        ("strength", 0.0),
        ("strength", 1.01),
        ("strength", float("nan")),
        ("guidance_scale", -1),
        ("guidance_scale", float("inf")),
        ("guidance_scale", "7"),
        ("image_guidance_scale", 20.5),
        ("seed", -1),
        ("seed", 2**32),
        ("threshold", 1.5),
        ("threshold", (0.7, 0.4)),
        ("threshold", (0.1, 0.2, 0.3)),
        ("mask_at", -0.1),
        ("modulation_end", 2),
        ("disentangle_end", "all"),
        ("method", "sdedit"),
        ("instructions", ()),
        ("instructions", ONE * 9),
        ("instructions", None),
        ("instructions", ("make the hat black",)),
        ("preserve_outside_mask", "no"),
        ("threshold", [0.4, 0.7]),
    ],
)
def test_a_bad_value_is_answered_with_its_field_and_what_is_allowed(field: str, value: object) -> None:
    with pytest.raises(InvalidParameter) as caught:
        EditSpec(**{"instructions": ONE, field: value})  # type: ignore[arg-type]
    assert caught.value.field == field
    assert caught.value.allowed
    assert field in str(caught.value)


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("text", {"text": "  "}),
        ("text", {"text": "x" * 501}),
        ("keyword", {"text": "make the hat black", "keyword": " "}),
        ("keyword", {"text": "keep that tree", "keyword": "hat"}),
        ("keyword", {"text": "keep that tree", "keyword": 3}),
        ("mask", {"text": "keep that tree", "mask": "mask.png"}),
        ("intensity", {"text": "make the hat black", "intensity": 10**400}),
        ("intensity", {"text": "make the hat black", "intensity": 101}),
    ],
)
def test_a_bad_sub_instruction_names_its_field(field: str, arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidParameter) as caught:
        SubInstruction(**arguments)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_what_is_left_open_comes_from_the_model_and_a_drawn_seed() -> None:
    spec = EditSpec(ONE, guidance_scale=3.0).with_defaults(
        ModelDefaults(num_inference_steps=20, threshold=0.5), seed=11
    )
    assert (spec.guidance_scale, spec.num_inference_steps, spec.threshold, spec.seed) == (3.0, 20, 0.5, 11)
    assert EditSpec(ONE, seed=0).with_defaults(ModelDefaults(), seed=11).seed == 0


def test_the_papers_settings_are_those_of_its_preset_whatever_a_checkpoint_says_of_its_maps() -> None:
    spec = EditSpec(ONE, preset="paper").with_defaults(ModelDefaults(threshold=0.1), seed=1)
    assert (spec.num_inference_steps, spec.strength, spec.guidance_scale, spec.image_guidance_scale) == (
        100,
        0.8,
        7.5,
        1.5,
    )
    assert (spec.threshold, spec.mask_at, spec.modulation_end, spec.disentangle_end) == ((0.4, 0.7), 0.0, 1.0, 0.75)


def test_the_default_preset_has_a_threshold_that_suits_its_maps_unless_the_checkpoint_has_its_own() -> None:
    assert EditSpec(ONE).with_defaults(ModelDefaults(), seed=1).threshold == PRESETS["default"].threshold
    assert EditSpec(ONE).with_defaults(ModelDefaults(threshold=0.1), seed=1).threshold == 0.1
    assert EditSpec(ONE, threshold=0.9).with_defaults(ModelDefaults(threshold=0.1), seed=1).threshold == 0.9


def test_the_package_imports_without_torch() -> None:
    code = "import foi_core, foi_core.result, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
