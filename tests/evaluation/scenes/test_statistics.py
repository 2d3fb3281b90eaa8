"""Intervals and p-values: what comes from one scene counts once."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from evaluation.scenes.statistics import bootstrap_interval, paired_permutation


def test_values_of_one_scene_are_drawn_together() -> None:
    # Two scenes: a resample is one of 0, 1/2 (half of them) and 1, however many values a scene has.
    values, scenes = [0.0] * 50 + [1.0] * 50, [7] * 50 + [3] * 50
    assert bootstrap_interval(values, scenes) == (0.5, 0, 1)
    assert bootstrap_interval(values, scenes, level=0.4) == (0.5, 0.5, 0.5)


def test_a_single_scene_says_nothing_about_others() -> None:
    assert bootstrap_interval([1.0, 2.0, 6.0], ["a", "a", "a"]) == (3, 3, 3)


def test_a_scene_with_more_values_weighs_more_in_the_mean() -> None:
    estimate, low, high = bootstrap_interval([1.0, 1.0, 1.0, 5.0], [0, 0, 0, 1])
    assert (estimate, low, high) == (2, 1, 5)


def test_the_interval_of_a_mean_is_that_of_normal_theory() -> None:
    values = np.random.default_rng(1).normal(10, 2, size=400)
    estimate, low, high = bootstrap_interval(values, np.arange(400))
    half = 1.96 * values.std() / 20
    assert estimate == pytest.approx(values.mean())
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)


def test_repeating_every_value_within_its_scene_does_not_narrow_the_interval() -> None:
    values, scenes = np.random.default_rng(2).random(60), np.arange(60)
    once, thrice = bootstrap_interval(values, scenes), bootstrap_interval(np.repeat(values, 3), np.repeat(scenes, 3))
    assert thrice == pytest.approx(once)


def test_the_median_shrugs_off_one_wild_value() -> None:
    values = [*np.linspace(1, 2, 41), 1e6]
    estimate, low, high = bootstrap_interval(values, range(42), np.median)
    assert estimate == pytest.approx(np.median(values))
    assert 1 < low < estimate < high < 2


def test_missing_values_are_left_out_and_so_are_scenes_without_any() -> None:
    with_gaps = bootstrap_interval([1.0, None, float("nan"), 3.0, 8.0], [0, 0, 1, 2, 3])
    assert with_gaps == bootstrap_interval([1.0, 3.0, 8.0], [0, 2, 3])
    assert np.isnan(bootstrap_interval([None, float("nan")], [0, 1])).all()


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(3).random(30)
    first, again, other = (bootstrap_interval(values, np.arange(30), seed=seed) for seed in (4, 4, 5))
    assert first == again != other


@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_a_full_tables_column_takes_no_time(statistic: Callable[[np.ndarray], float]) -> None:
    values, scenes = np.random.default_rng(6).random(900), np.repeat(np.arange(300), 3)
    start = time.process_time()
    bootstrap_interval(values, scenes, statistic)
    assert time.process_time() - start < 1.5


def test_equal_methods_are_never_told_apart() -> None:
    assert paired_permutation([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [0, 1, 2]) == 1
    assert paired_permutation([None], [1.0], [0]) == 1


def test_the_p_value_is_the_share_of_sign_flips_that_go_as_far() -> None:
    differences = np.array([3.0, 1.0, 2.0, -1.0, 2.0, 4.0])
    flips = np.array(list(product([-1, 1], repeat=6)))
    exact = (np.abs(flips @ differences) >= differences.sum()).mean()
    assert paired_permutation(differences, np.zeros(6), range(6)) == pytest.approx(exact, abs=0.015)


def test_both_directions_count_alike() -> None:
    a, b, scenes = [5.0, 6.0, 9.0, 4.0], [1.0, 5.0, 2.0, 6.0], range(4)
    assert paired_permutation(a, b, scenes) == paired_permutation(b, a, scenes)


def test_a_clear_difference_is_significant_but_never_certain() -> None:
    assert paired_permutation(np.ones(50), np.zeros(50), range(50)) == 1 / 10_001


def test_many_seeds_of_few_scenes_are_no_more_evidence_than_the_scenes() -> None:
    # Three scenes have 8 sign patterns, two of which go as far as the observed one.
    scenes = np.repeat([0, 1, 2], 100)
    assert paired_permutation(np.ones(300), np.zeros(300), scenes) == pytest.approx(2 / 8, abs=0.015)


def test_a_pair_with_a_missing_value_is_left_out() -> None:
    whole = paired_permutation([3.0, 1.0, 2.0], [0.0, 2.0, 0.0], [0, 1, 3])
    assert paired_permutation([3.0, 1.0, None, 2.0, 9.0], [0.0, 2.0, 1.0, 0.0, np.nan], [0, 1, 1, 3, 4]) == whole


def test_each_scene_has_one_say_however_many_values_it_has() -> None:
    # Means 1, -1, 1 sum to 1, and every sign pattern goes as far; sums 3, -1, 1 would give 3/4.
    assert paired_permutation([1.0, 1.0, 1.0, -1.0, 1.0], np.zeros(5), [0, 0, 0, 1, 2]) == 1
