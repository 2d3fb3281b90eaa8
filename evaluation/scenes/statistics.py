"""How sure a number is, when several values (seeds, instructions) come from one scene and so are not independent.

Values of one scene always go together. Missing values (nan or None) are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

Values = Sequence[float | None] | np.ndarray
Scenes = Sequence[Hashable] | np.ndarray


def bootstrap_interval(
    values: Values,
    scenes: Scenes,
    statistic: Callable[[np.ndarray], np.floating | float] = np.mean,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Estimate and its percentile interval, (estimate, low, high), in the values' unit; nan without values.

    Cluster bootstrap (Davison and Hinkley, Bootstrap Methods and Their Application, 1997, 3.8): scenes are drawn with
    replacement, each with all its values. `scenes` (n,) says whose each of the `values` (n,) is.
    """
    kept, owners, count = _by_scene(values, scenes)
    if not count:
        return float("nan"), float("nan"), float("nan")
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    if statistic is np.mean:
        sums, sizes = np.bincount(owners, kept), np.bincount(owners)
        estimates = (draws @ sums) / (draws @ sizes)
    else:
        estimates = np.array([statistic(np.repeat(kept, draw[owners])) for draw in draws])
    low, high = np.quantile(estimates, [(1 - level) / 2, (1 + level) / 2])
    return float(statistic(kept)), float(low), float(high)


def paired_permutation(a: Values, b: Values, scenes: Scenes, resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value, in (0, 1], of "a and b are alike": a sign-flip permutation test by scene.

    `a` and `b` (n,) are two methods' values of the same things. If they are alike, the sign of a scene's mean
    difference a - b is a coin toss; p = (1 + count) / (1 + resamples), where count is how many tosses give a sum as
    far from 0 as the observed one (Phipson and Smyth, 2010: never 0).
    """
    differences, owners, count = _by_scene(np.subtract(_floats(a), _floats(b)), scenes)
    means = np.bincount(owners, differences) / np.bincount(owners)
    signs = np.random.default_rng(seed).choice(np.array([-1.0, 1.0]), size=(resamples, count))
    rounding = 1e-9 * np.abs(means).sum()
    as_far = np.abs(signs @ means) >= abs(means.sum()) - rounding
    return float((1 + as_far.sum()) / (1 + resamples))


def _by_scene(values: Values, scenes: Scenes) -> tuple[np.ndarray, np.ndarray, int]:
    """The values that are there, each one's scene as 0, 1, ..., and how many scenes have any."""
    numbers = _floats(values)
    there = ~np.isnan(numbers)
    names, owners = np.unique(np.asarray(scenes)[there], return_inverse=True)
    return numbers[there], owners, len(names)


def _floats(values: Values) -> np.ndarray:
    return np.asarray(values, dtype=float)
