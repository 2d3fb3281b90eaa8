"""The methods that are compared, one row of the table each.

Null-text inversion with Prompt-to-Prompt, a baseline of the paper, is not among them: diffusers 0.42 carries neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from PIL import Image

from evaluation.pictures.data import Item
from evaluation.pictures.diffedit import DiffEdit
from foi_core import EditSpec, SubInstruction
from foi_core.engine import Engine

Method = Literal["source", "ip2p", "foi", "foi-paper", "diffedit"]
METHODS: tuple[Method, ...] = ("source", "ip2p", "foi", "foi-paper", "diffedit")


@dataclass(frozen=True)
class Outcome:
    """An edited picture of the input's size (None where only the masks were looked for); the masks that bounded it
    ("L", of the same size; none for methods without); the seconds that it took (None where nothing ran); and what the
    engine warned of."""

    image: Image.Image | None
    masks: tuple[Image.Image, ...] = ()
    seconds: float | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Editor:
    """Runs every method with one model. `steps` None: the model's own; `seed` where an item names none."""

    engine: Engine
    steps: int | None
    seed: int
    diffedit: DiffEdit | None

    def can(self, method: Method, item: Item) -> bool:
        """DiffEdit needs captions of both pictures, which not every item has."""
        return method != "diffedit" or (item.caption is not None and item.target_caption is not None)

    def edit(self, method: Method, item: Item) -> Outcome:
        """Raises InvalidParameter and ModelFailure as the engine does."""
        picture, seed = item.picture(), self.seed if item.seed is None else item.seed
        if method == "source":
            return Outcome(picture)
        if method == "diffedit":
            assert self.diffedit is not None
            assert item.caption is not None
            assert item.target_caption is not None
            edited, mask, seconds = self.diffedit.edit(picture, item.caption, item.target_caption, self.steps, seed)
            return Outcome(edited, (mask,), seconds)
        result = self.engine.edit(picture, edit_spec(method, item.instructions(), self.steps, seed))
        return Outcome(result.image, result.masks, result.seconds, tuple(w.message for w in result.warnings))


def edit_spec(method: Method, instructions: tuple[SubInstruction, ...], steps: int | None, seed: int) -> EditSpec:
    """What each row runs.

    "ip2p" is plain InstructPix2Pix as published: from pure noise, so all `steps` are run (the paper's Table 6 counts
    50 of them against FoI's 40). "foi-paper" is the paper alone, which does not paste the input back outside the
    masks; "foi" is what the service does.
    """
    if method == "ip2p":
        return EditSpec(instructions, method="ip2p", strength=1.0, num_inference_steps=steps, seed=seed)
    if method == "foi-paper":
        return EditSpec(instructions, preset="paper", preserve_outside_mask=False, num_inference_steps=steps, seed=seed)
    return EditSpec(instructions, num_inference_steps=steps, seed=seed)
