"""What an edit is asked to do: frozen, validated, torch-free."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from PIL import Image

from foi_core.errors import InvalidParameter

Method = Literal["foi", "ip2p", "masks"]
METHODS: tuple[Method, ...] = ("foi", "ip2p", "masks")
Preset = Literal["default", "paper"]

MAX_SUB_INSTRUCTIONS = 8
MAX_TEXT_LENGTH = 500
MAX_SPLIT_LENGTH = MAX_SUB_INSTRUCTIONS * MAX_TEXT_LENGTH
"""Of a text that is to be split: no longer one has pieces that are all allowed."""
MIN_SIDE = 16
MAX_ASPECT = 8
"""IP2P's size rule makes the shorter side at least 64: up to 8:1 the longer stays below twice the model's own side."""
SEED_LIMIT = 2**32

# Inclusive ranges of the numeric fields, for every caller that checks or documents them.
RANGES: dict[str, tuple[float, float]] = {
    "num_inference_steps": (1, 150),
    "strength": (0.01, 1.0),
    "guidance_scale": (0.0, 50.0),
    "image_guidance_scale": (0.0, 20.0),
    "seed": (0, SEED_LIMIT - 1),
    "threshold": (0.0, 1.0),
    "mask_at": (0.0, 1.0),
    "modulation_end": (0.0, 1.0),
    "disentangle_end": (0.0, 1.0),
    "intensity": (0.0, 100.0),
}


@dataclass(frozen=True)
class SubInstruction:
    """One atomic edit T_i of the instruction.

    `keyword` is e_i, the word or words of `text` whose cross-attention grounds it (None: found by a rule).
    `intensity` is alpha of Eq. 6. `mask` replaces the found region: an "L" picture of the input's size, white = may
    change.
    """

    text: str
    keyword: str | None = None
    intensity: float = 1.0
    mask: Image.Image | None = field(default=None, hash=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise InvalidParameter("text", self.text, "a sentence that says what to change")
        if any("\ud800" <= letter <= "\udfff" for letter in self.text):
            raise InvalidParameter("text", ascii(self.text), "text without halves of surrogate pairs")
        if len(self.text) > MAX_TEXT_LENGTH:
            raise InvalidParameter("text", self.text, f"at most {MAX_TEXT_LENGTH} characters")
        if self.keyword is not None and not isinstance(self.keyword, str):
            raise InvalidParameter("keyword", self.keyword, "text")
        if self.keyword is not None and word_span(self.text, self.keyword) is None:
            raise InvalidParameter("keyword", self.keyword, f"a word of {self.text!r}, or nothing at all")
        if self.mask is not None and not isinstance(self.mask, Image.Image):
            raise InvalidParameter("mask", self.mask, "a PIL image")
        _check_number("intensity", self.intensity)


@dataclass(frozen=True)
class MethodSettings:
    """The numbers of the method that the paper varies: tau of Eq. 2, and when each part acts (Tables 3-5)."""

    threshold: float | tuple[float, float]
    mask_at: float
    modulation_end: float
    disentangle_end: float


PRESETS: dict[Preset, MethodSettings] = {
    "default": MethodSettings(threshold=0.25, mask_at=0.0, modulation_end=1.0, disentangle_end=0.75),
    "paper": MethodSettings(threshold=(0.4, 0.7), mask_at=0.0, modulation_end=1.0, disentangle_end=0.75),
}
"""What each preset sets where a caller names nothing; its parts are in `foi_core.recipe`."""


@dataclass(frozen=True)
class ModelDefaults:
    """Settings that a checkpoint recommends for itself; the paper's where it names none.

    `threshold` belongs to the preset "default", since it depends on how a checkpoint's maps look; None leaves the
    preset's own.
    """

    num_inference_steps: int = 100
    guidance_scale: float = 7.5
    image_guidance_scale: float = 1.5
    threshold: float | tuple[float, float] | None = None


@dataclass(frozen=True)
class EditSpec:
    """Everything that one edit is asked to do. `method`: "foi"; "ip2p", plain and without regions; "masks", which stops
    when it has the regions and changes nothing. None means: the default of the model (`ModelDefaults`) or of the preset
    (`PRESETS`); a seed is drawn.

    `preset`: "paper" is the faithful reading, "default" what was measured to be better (docs/method.md). `strength` is
    the share of noise that the start gets (the paper's 80%). `threshold` is tau of Eq. 2: a number, or a range that it
    is drawn from by the edit's own seed. The three switches of the paper's Tables 3-5 are shares of the run in [0, 1]:
    `mask_at` when the masks are taken, `modulation_end` and `disentangle_end` when each part of the method stops.
    `preserve_outside_mask` pastes the input back outside the masks, to the byte.
    """

    instructions: tuple[SubInstruction, ...]
    method: Method = "foi"
    preset: Preset = "default"
    num_inference_steps: int | None = None
    strength: float = 0.8
    guidance_scale: float | None = None
    image_guidance_scale: float | None = None
    seed: int | None = None
    threshold: float | tuple[float, float] | None = None
    mask_at: float | None = None
    modulation_end: float | None = None
    disentangle_end: float | None = None
    preserve_outside_mask: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.instructions, tuple) or not all(
            isinstance(p, SubInstruction) for p in self.instructions
        ):
            raise InvalidParameter("instructions", self.instructions, "a tuple of SubInstruction")
        if not 1 <= len(self.instructions) <= MAX_SUB_INSTRUCTIONS:
            raise InvalidParameter(
                "instructions", len(self.instructions), f"1 to {MAX_SUB_INSTRUCTIONS} sub-instructions"
            )
        if not isinstance(self.preserve_outside_mask, bool):
            raise InvalidParameter("preserve_outside_mask", self.preserve_outside_mask, "True or False")
        if self.method not in METHODS:
            raise InvalidParameter("method", self.method, " or ".join(METHODS))
        if self.preset not in PRESETS:
            raise InvalidParameter("preset", self.preset, " or ".join(PRESETS))
        for name in ("num_inference_steps", "seed"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
                raise InvalidParameter(name, value, "a whole number")
        for name in RANGES.keys() & {f.name for f in fields(self)} - {"threshold"}:
            if getattr(self, name) is not None:
                _check_number(name, getattr(self, name))
        if self.threshold is not None:
            _check_threshold(self.threshold)

    def with_defaults(self, defaults: ModelDefaults, seed: int) -> EditSpec:
        """The same edit with nothing left open: `seed`, the model's `defaults` or the preset's where this says None."""
        of_model = {f.name: getattr(defaults, f.name) for f in fields(defaults)}
        of_preset = {f.name: getattr(PRESETS[self.preset], f.name) for f in fields(MethodSettings)}
        if self.preset == "paper" or defaults.threshold is None:
            del of_model["threshold"]
        open_ones = {"seed": seed, **of_preset, **of_model}
        return replace(self, **{name: value for name, value in open_ones.items() if getattr(self, name) is None})


def word_span(text: str, words: str) -> tuple[int, int] | None:
    """Where `words` stand in `text`, as whole words and in any case; None if they do not, or are blank."""
    wanted = words.strip()
    if not wanted or len(wanted) > len(text):  # the pattern of a long one would be kept for the next time
        return None
    found = re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", text, re.IGNORECASE)
    return found.span() if found else None


def _check_number(name: str, value: float) -> None:
    low, high = RANGES[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidParameter(name, value, f"a number from {low:g} to {high:.10g}")


def _check_threshold(threshold: float | tuple[float, float]) -> None:
    bounds = threshold if isinstance(threshold, tuple) else (threshold, threshold)
    if isinstance(threshold, list) or len(bounds) != 2:
        raise InvalidParameter("threshold", threshold, "one number, or a range of two")
    for bound in bounds:
        _check_number("threshold", bound)
    if bounds[0] > bounds[1]:
        raise InvalidParameter("threshold", threshold, "a range whose first number is not above its second")
