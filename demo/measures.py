"""How well a soft map finds a true region."""

from __future__ import annotations

import numpy as np


def average_precision(soft: np.ndarray, truth: np.ndarray) -> float:
    """Area under the precision-recall curve of a soft map (H, W), any range, larger is inside; in (0, 1].

    The step-wise sum of (R_n - R_{n-1}) P_n over distinct thresholds, without interpolation: equal values enter
    together, so their order does not matter; a constant map scores the share of true pixels. nan if `truth` is empty.
    """
    if not truth.any():
        return float("nan")
    values = soft.astype(float).ravel()
    order = np.argsort(-values)
    values, hits = values[order], np.cumsum(truth.ravel()[order])
    last_of_ties = np.append(np.flatnonzero(values[1:] != values[:-1]), len(values) - 1)
    hits = hits[last_of_ties]
    recall, precision = hits / hits[-1], hits / (last_of_ties + 1)
    return float((np.diff(recall, prepend=0.0) * precision).sum())
