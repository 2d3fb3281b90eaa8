"""What is measured on one result. Every value is a float, or is not there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from evaluation.pictures.data import Item
from evaluation.pictures.pictures import open_mask, open_target
from evaluation.pictures.scorers import Clip, Dino, similarity
from evaluation.scenes.metrics import iou, outside


@dataclass(frozen=True)
class Judges:
    """The judges whose weights the user gave; `sources` names them, so that a rerun knows who has judged."""

    sources: Mapping[str, str]
    clip: Clip | None = None
    dino: Dino | None = None
    pickscore: Clip | None = None


def measure(item: Item, result: Image.Image | None, masks: tuple[Image.Image, ...], judges: Judges) -> dict[str, float]:
    """All measures that `item` and `judges` allow; only those of the masks where there is no result.

    `clip_i` and `dino_i` compare with the source, as the paper does ("between edited and original images", Sec. 5.1);
    `..._target` with the target. Errors are in grey levels (MAE) and dB (PSNR, at most 68.1).
    """
    source = item.picture()
    found: dict[str, float | None] = {}
    truth = None if item.mask is None else np.asarray(open_mask(item.mask, source.size)) > 0
    if truth is not None and masks:
        found["mask_iou"] = iou(np.any([np.asarray(mask) > 0 for mask in masks], axis=0), truth)
    if result is not None:
        found |= _measure_result(item, source, result, truth, judges)
    return {name: value for name, value in found.items() if value is not None}


def _measure_result(
    item: Item, source: Image.Image, result: Image.Image, truth: np.ndarray | None, judges: Judges
) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    pixels = np.asarray(result)
    if truth is not None:
        errors = outside(pixels, np.asarray(source), truth)
        found |= {"mae_outside": errors["mae"], "psnr_outside": errors["psnr"]}
    target = None if item.target is None else open_target(item.target, source.size)
    if target is not None:
        errors = outside(pixels, np.asarray(target), np.zeros(pixels.shape[:2], dtype=bool))
        found |= {"mae_target": errors["mae"], "psnr_target": errors["psnr"]}
    for name, judge in (("clip_i", judges.clip), ("dino_i", judges.dino)):
        if judge is not None:
            found[name] = similarity(judge, result, source)
            if target is not None:
                found[name + "_target"] = similarity(judge, result, target)
    if judges.clip is not None and item.caption is not None and item.target_caption is not None:
        found["clip_d"] = judges.clip.direction(source, result, item.caption, item.target_caption)
    if judges.pickscore is not None and item.target_caption is not None:
        found["pick_logit"] = judges.pickscore.agreement(result, item.target_caption)
    return found
