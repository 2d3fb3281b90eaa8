"""What an edit gives back: torch-free, so that every caller can read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from foi_core.spec import EditSpec

Stage = Literal["encode", "denoise", "decode"]
WarningCode = Literal["mask-empty", "mask-full", "text-cut", "nothing-changed"]


@dataclass(frozen=True)
class Keyword:
    """The words that grounded a sub-instruction, their token positions in the whole instruction, and who chose them."""

    text: str
    token_indices: tuple[int, ...]
    source: Literal["given", "rule", "attention"]


@dataclass(frozen=True)
class EditWarning:
    """Something that the caller should know, and what to try. `instruction` is the sub-instruction's index, or None."""

    code: WarningCode
    message: str
    instruction: int | None = None


@dataclass(frozen=True)
class Progress:
    """Where a running edit is: `step` denoising steps of `steps` are done."""

    step: int
    steps: int
    stage: Stage


@dataclass(frozen=True)
class EditResult:
    """The edited picture and its proof.

    `image` and each of `masks` ("L", 0 or 255, white = may change) have the input's size. `attention_maps` are float32
    (h, w) in [0, 1] at the resolution of the model's map level. One mask, map and keyword per sub-instruction, in
    order; all three are empty for `method="ip2p"`, which has no regions; for `method="masks"` `image` is the input.
    Where the caller gave a mask there is no map (None). `spec` has every open value filled in; `threshold` is the tau
    that was used. `seconds` is the model's time, from encoding to decoding, `unet_rows` the rows that the UNet worked
    on (two or three a step).
    `flagged` is the verdict of the model's safety checker; None where nothing looked.
    """

    image: Image.Image
    masks: tuple[Image.Image, ...]
    attention_maps: tuple[np.ndarray | None, ...]
    keywords: tuple[Keyword | None, ...]
    warnings: tuple[EditWarning, ...]
    spec: EditSpec
    threshold: float
    seconds: float
    unet_rows: int
    flagged: bool | None = None

    @property
    def seed(self) -> int:
        assert self.spec.seed is not None
        return self.spec.seed
