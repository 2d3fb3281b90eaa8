"""How good a mask is and how good an edited picture is, against the truth.

Masks are (H, W) bool, pictures (H, W, 3) on 0..255 (uint8 or float); errors are mean absolute errors over pixels and
RGB, in grey levels. What is undefined is nan, or None where a table shows a dash.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import numpy as np

SUCCESS = 0.5  # an edit succeeds if `success_error` is below


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two masks, in [0, 1]; 1 if both are empty."""
    union = (mask | truth).sum()
    return float((mask & truth).sum() / union) if union else 1.0


def boundary_f(mask: np.ndarray, truth: np.ndarray, tolerance: int = 2) -> float:
    """F-measure of the masks' boundaries, matched within `tolerance` pixels (Euclidean), in [0, 1].

    After DAVIS (Perazzi et al., CVPR 2016), which matches the boundaries by dilation with a disc too. A boundary
    pixel is a mask's pixel with a neighbour (of four) outside it; the picture's frame is no boundary. 1 if both masks
    are empty, or neither has a boundary; 0 if one mask is empty, or just one has a boundary.
    """
    if mask.any() != truth.any():
        return 0.0
    ours, theirs = mask & near(~mask, 1), truth & near(~truth, 1)
    if not ours.any() or not theirs.any():
        return float(ours.any() == theirs.any())
    precision = (ours & near(theirs, tolerance)).sum() / ours.sum()
    recall = (theirs & near(ours, tolerance)).sum() / theirs.sum()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def success_error(result: np.ndarray, source: np.ndarray, target: np.ndarray, changed: np.ndarray) -> float:
    """Error to the target over the `changed` pixels, as a share of the input's: 0 is the target, 1 is no edit.

    The edit is a success below SUCCESS. nan if source and target agree there.
    """
    before = _difference(source, target)[changed].sum()
    return float(_difference(result, target)[changed].sum() / before) if before else float("nan")


def outside(result: np.ndarray, source: np.ndarray, union: np.ndarray) -> dict[str, float | None]:
    """Change where nothing was asked (not in `union`): `mae` and `max` in grey levels, `psnr` in dB.

    The mean squared error is floored at 1e-2, which caps the PSNR at 68.1 dB. All None if everything is inside.
    """
    difference = _difference(result, source)[~union]
    if not difference.size:
        return {"mae": None, "psnr": None, "max": None}
    psnr = 10 * np.log10(255**2 / max((difference**2).mean(), 1e-2))
    return {"mae": float(difference.mean()), "psnr": float(psnr), "max": float(difference.max())}


def ring_error(result: np.ndarray, target: np.ndarray, union: np.ndarray, width: int = 8) -> float:
    """Error to the target, in grey levels, within `width` pixels of the union's boundary on either side: seams.

    nan if the union is empty or everything.
    """
    ring = near(union, width) & near(~union, width)
    return float(_difference(result, target)[ring].mean()) if ring.any() else float("nan")


def leakage(result: np.ndarray, source: np.ndarray, union: np.ndarray) -> float | None:
    """Mean change outside over mean change inside, 0 or more; None without an outside or without change inside."""
    difference = _difference(result, source)
    within, beyond = difference[union], difference[~union]
    return float(beyond.mean() / within.mean()) if beyond.size and within.any() else None


def interference(full: np.ndarray, without: Sequence[np.ndarray], regions: np.ndarray) -> np.ndarray:
    """Which instruction changes which region: (k, k), in grey levels.

    D[i, j] = mean |full - without_j| over the pixels that only region i (of `regions`, (k, H, W) bool) holds, where
    `without[j]` is the same edit with instruction j left out. Row i is nan if region i has no pixel to itself.
    """
    own = regions & (regions.sum(axis=0) == 1)
    effects = [_difference(full, other) for other in without]
    return np.array([[e[r].mean() if r.any() else np.nan for e in effects] for r in own])


def interference_ratio(matrix: np.ndarray) -> float:
    """Mean off-diagonal over mean diagonal of `interference`, rows of nan left out: 0 if all keep to their regions.

    nan for one instruction, and where no instruction has an effect in its own region.
    """
    diagonal = np.eye(len(matrix), dtype=bool)
    defined = ~np.isnan(matrix)
    on, off = matrix[diagonal & defined], matrix[~diagonal & defined]
    return float(off.mean() / on.mean()) if off.size and on.any() else float("nan")


def _difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(one.astype(float) - other))


def near(pixels: np.ndarray, distance: int) -> np.ndarray:
    """The pixels within a Euclidean `distance` of one of `pixels`, those included: dilation with a disc."""
    height, width = pixels.shape
    padded = np.pad(pixels, distance)
    near = np.zeros_like(pixels)
    for row in range(2 * distance + 1):
        reach = isqrt(distance**2 - (row - distance) ** 2)
        for column in range(distance - reach, distance + reach + 1):
            near |= padded[row : row + height, column : column + width]
    return near
