"""The stored input and the engine's spec say the same."""

from __future__ import annotations

from PIL import Image

from foi_core.spec import EditSpec, SubInstruction
from jobs.records import EditInput, Instruction
from tests.support import submission


def test_spec_to_input_and_back_is_the_same_spec() -> None:
    spec = EditSpec(
        instructions=(SubInstruction("make the hat black", "hat", 2.0), SubInstruction("remove the tree")),
        guidance_scale=3.5,
        seed=11,
        threshold=(0.4, 0.7),
        preserve_outside_mask=False,
    )
    parts = [Instruction(text=p.text, keyword=p.keyword, intensity=p.intensity) for p in spec.instructions]
    stored = EditInput.from_spec(spec, parts, output_format="png", width=8, height=9)
    assert EditInput.model_validate_json(stored.model_dump_json()).to_spec((None, None)) == spec


def test_masks_reach_the_spec_in_their_places() -> None:
    mask = Image.new("L", (48, 32), 255)
    parts = (Instruction(text="one"), Instruction(text="two", mask="input-mask-1.png"))
    spec = submission(instructions=parts).input.to_spec((None, mask))
    assert [part.mask for part in spec.instructions] == [None, mask]
