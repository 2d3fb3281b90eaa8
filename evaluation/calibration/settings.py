"""The settings that are compared, and how a picture is edited under each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from evaluation.pictures.data import Item
from evaluation.pictures.methods import Outcome
from foi_core import EditSpec, SubInstruction
from foi_core.engine import Engine
from foi_core.spec import ModelDefaults, Preset

Threshold = float | tuple[float, float] | None

THRESHOLDS = (0.15, 0.25, 0.35, 0.5, 0.65, 0.8)
"""Fixed cuts of the default preset's map, from nearly all of it to its peak."""
GUIDANCE_SCALES = (1.5, 3.0, 5.0, 7.5, 10.0)
IMAGE_GUIDANCE_SCALES = (1.2, 1.5, 2.0)
"""Around the paper's 7.5 and 1.5; a small model may need far less."""


class Scales(NamedTuple):
    """s_T and s_I of Eq. 1."""

    guidance_scale: float
    image_guidance_scale: float


@dataclass(frozen=True)
class Setting:
    """One setting: how masks are cut, and the scales of an edit; without scales only the masks are looked for.

    `threshold` None is the preset's own, whatever the checkpoint recommends.
    """

    threshold: Threshold = None
    preset: Preset = "default"
    scales: Scales | None = None

    @property
    def name(self) -> str:
        """Names its files and its lines of results."""
        mask = self.preset if self.threshold is None else shown(self.threshold)
        return f"masks-{mask}" if self.scales is None else "-".join(["edit", mask, *map(shown, self.scales)])

    @property
    def label(self) -> str:
        """As the tables and the sheet call it."""
        if self.scales is not None:
            return "s_T {}, s_I {}".format(*map(shown, self.scales))
        return f"preset {self.preset}" if self.threshold is None else f"threshold {shown(self.threshold)}"

    def spec(self, instructions: tuple[SubInstruction, ...], steps: int, seed: int) -> EditSpec:
        """Raises InvalidParameter."""
        return EditSpec(
            instructions,
            method="masks" if self.scales is None else "foi",
            preset=self.preset,
            num_inference_steps=steps,
            seed=seed,
            threshold=self.threshold,
            guidance_scale=self.scales.guidance_scale if self.scales else None,
            image_guidance_scale=self.scales.image_guidance_scale if self.scales else None,
        )


@dataclass(frozen=True)
class Trials:
    """Tries settings by their names, as `evaluation.pictures.run` asks. `seed` is for items that name none.

    The engine's model must recommend no threshold: None would not be the preset's own.
    """

    engine: Engine
    steps: int
    seed: int
    settings: Mapping[str, Setting]

    def can(self, method: str, item: Item) -> bool:  # noqa: ARG002
        return True

    def edit(self, method: str, item: Item) -> Outcome:
        """Raises InvalidParameter and ModelFailure as the engine does."""
        setting, seed = self.settings[method], self.seed if item.seed is None else item.seed
        result = self.engine.edit(item.picture(), setting.spec(item.instructions(), self.steps, seed))
        image = None if setting.scales is None else result.image
        return Outcome(image, result.masks, result.seconds, tuple(w.message for w in result.warnings))


def mask_settings(own: ModelDefaults) -> list[Setting]:
    """The model's own first, so that it stays where no other is better; the paper's last."""
    thresholds = dict.fromkeys([own.threshold, None, *THRESHOLDS])
    return [*(Setting(threshold) for threshold in thresholds), Setting(preset="paper")]


def edit_settings(
    masks: Setting, own: ModelDefaults, guidance: Sequence[float], image_guidance: Sequence[float]
) -> list[Setting]:
    """All pairs of scales under one mask setting; the model's own first, as above."""
    pairs = [Scales(s_T, s_I) for s_I, s_T in product(sorted(set(image_guidance)), sorted(set(guidance)))]
    scales = dict.fromkeys([Scales(own.guidance_scale, own.image_guidance_scale), *pairs])
    return [Setting(masks.threshold, masks.preset, pair) for pair in scales]


def shown(value: float | tuple[float, float]) -> str:
    """0.25, or 0.4-0.7."""
    return "-".join(f"{bound:.10g}" for bound in (value if isinstance(value, tuple) else (value,)))
