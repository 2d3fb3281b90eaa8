"""The metrics, on pictures small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from demo.measures import average_precision
from evaluation.scenes.metrics import (
    boundary_f,
    interference,
    interference_ratio,
    iou,
    leakage,
    outside,
    ring_error,
    success_error,
)

EMPTY = np.zeros((4, 4), bool)
FULL = ~EMPTY


def square(top: int, left: int, side: int, size: int = 32) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def grey(*rows: list[float]) -> np.ndarray:
    """A picture whose three channels are alike."""
    return np.repeat(np.array(rows, float)[:, :, None], 3, axis=2)


def test_iou_is_the_shared_part_of_both_masks() -> None:
    assert iou(square(0, 0, 2), square(0, 1, 2)) == pytest.approx(2 / 6)
    assert iou(square(0, 0, 2), square(9, 9, 2)) == 0
    assert iou(EMPTY, EMPTY) == 1


def test_average_precision_sums_precision_at_each_true_pixel() -> None:
    truth = np.array([[True, False], [True, False]])
    soft = np.array([[0.9, 0.8], [0.7, 0.1]])
    assert average_precision(soft, truth) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision(-soft, truth) == pytest.approx(0.5 * 1 / 2 + 0.5 * 2 / 4)
    assert average_precision(truth.astype(float), truth) == 1


def test_average_precision_does_not_depend_on_the_order_of_equal_values() -> None:
    truth = np.array([[True, False, False, True]])
    soft = np.array([[0.9, 0.5, 0.5, 0.5]])
    assert average_precision(soft, truth) == pytest.approx(0.5 * 1 + 0.5 * 2 / 4)
    assert average_precision(soft, truth[:, ::-1]) == average_precision(np.array([[0.5, 0.5, 0.5, 0.9]]), truth)
    assert average_precision(np.full((1, 4), 7.0), truth) == pytest.approx(0.5)


def test_average_precision_of_an_empty_truth_is_undefined() -> None:
    assert np.isnan(average_precision(np.ones((4, 4)), EMPTY))


def test_boundaries_within_the_tolerance_match() -> None:
    truth = square(10, 10, 8)
    assert boundary_f(truth, truth, tolerance=0) == 1
    assert boundary_f(square(10, 12, 8), truth, tolerance=2) == 1
    # A side's 8 pixels shifted by 3 have their match 3 away, but for those that meet the other mask's corners.
    assert boundary_f(square(10, 13, 8), truth, tolerance=2) < 1
    assert boundary_f(square(22, 22, 8), truth, tolerance=2) == 0


def test_boundary_f_is_the_harmonic_mean_of_precision_and_recall() -> None:
    # Two 1 px dots against one of them: precision 1/2, recall 1.
    dot = square(4, 4, 1)
    assert boundary_f(dot | square(20, 20, 1), dot) == pytest.approx(2 / 3)


def test_the_tolerance_is_a_disc() -> None:
    dot = square(10, 10, 1)
    assert boundary_f(square(11, 11, 1), dot, tolerance=1) == 0
    assert boundary_f(square(11, 11, 1), dot, tolerance=2) == 1
    assert boundary_f(square(12, 11, 1), dot, tolerance=2) == 0


def test_boundary_f_of_empty_masks_and_of_the_whole_picture() -> None:
    assert boundary_f(EMPTY, EMPTY) == 1
    assert boundary_f(FULL, FULL) == 1
    assert boundary_f(FULL, EMPTY) == 0
    assert boundary_f(EMPTY, square(1, 1, 2, size=4)) == 0
    assert boundary_f(FULL, square(1, 1, 2, size=4)) == 0


def test_the_pictures_frame_is_no_boundary() -> None:
    left_half = np.zeros((6, 6), bool)
    left_half[:, :3] = True
    two_columns_more = np.zeros((6, 6), bool)
    two_columns_more[:, :5] = True
    assert boundary_f(left_half, two_columns_more, tolerance=2) == 1
    assert boundary_f(left_half, two_columns_more, tolerance=1) == 0


def test_success_error_is_the_share_of_the_way_that_is_left() -> None:
    source, target = grey([0, 0, 0]), grey([100, 200, 50])
    changed = np.array([[True, True, False]])
    assert success_error(source, source, target, changed) == 1
    assert success_error(target, source, target, changed) == 0
    assert success_error(grey([70, 170, 0]), source, target, changed) == pytest.approx(60 / 300)
    assert np.isnan(success_error(source, source, source, changed))


def test_pictures_of_bytes_do_not_wrap_around() -> None:
    dark, light = np.full((1, 1, 3), 10, np.uint8), np.full((1, 1, 3), 250, np.uint8)
    none = np.zeros((1, 1), bool)
    assert outside(dark, light, none)["mae"] == outside(light, dark, none)["mae"] == 240


def test_outside_sees_only_what_lies_outside() -> None:
    found = outside(grey([90, 3, 0]), grey([0, 0, 4]), np.array([[True, False, False]]))
    assert found["mae"] == pytest.approx(3.5)
    assert found["max"] == 4
    assert found["psnr"] == pytest.approx(10 * np.log10(65025 / 12.5))


def test_an_exact_outside_has_a_finite_psnr_and_no_outside_has_none() -> None:
    picture = grey([1, 2])
    assert outside(picture, picture, np.array([[True, False]]))["psnr"] == pytest.approx(68.13, abs=0.01)
    assert outside(picture, picture, np.array([[True, True]])) == {"mae": None, "psnr": None, "max": None}


def test_the_ring_reaches_as_far_on_both_sides_of_the_boundary() -> None:
    union = np.zeros((1, 10), bool)
    union[:, :5] = True
    target = np.zeros((1, 10, 3))
    for column, inside_ring in enumerate([False, False, False, True, True, True, True, False, False, False]):
        result = target.copy()
        result[0, column] = 40
        assert ring_error(result, target, union, width=2) == (40 / 4 if inside_ring else 0)


def test_without_a_boundary_there_is_no_ring() -> None:
    picture = np.zeros((4, 4, 3))
    assert np.isnan(ring_error(picture, picture, FULL))
    assert np.isnan(ring_error(picture, picture, EMPTY))


def test_leakage_compares_the_change_outside_with_that_inside() -> None:
    union = np.array([[True, False, False]])
    assert leakage(grey([80, 4, 0]), grey([0, 0, 0]), union) == pytest.approx(2 / 80)
    assert leakage(grey([0, 4, 0]), grey([0, 0, 0]), union) is None
    assert leakage(grey([80, 4, 0]), grey([0, 0, 0]), np.ones((1, 3), bool)) is None
    assert leakage(grey([80, 4, 0]), grey([0, 0, 0]), np.zeros((1, 3), bool)) is None


def test_interference_tells_which_instruction_changed_which_region() -> None:
    regions = np.array([[[True, True, False, False]], [[False, True, True, False]]])
    full = grey([100, 100, 100, 0])
    without = [grey([60, 0, 90, 0]), grey([98, 0, 20, 0])]  # the pixel that both regions hold counts for neither
    matrix = interference(full, without, regions)
    assert matrix.tolist() == [[40, 2], [10, 80]]
    assert interference_ratio(matrix) == pytest.approx(6 / 60)


def test_a_region_within_another_has_no_row_of_interference() -> None:
    regions = np.array([[[True, False]], [[True, True]]])
    matrix = interference(grey([9, 9]), [grey([0, 8]), grey([0, 5])], regions)
    assert np.isnan(matrix[0]).all()
    assert matrix[1].tolist() == [1, 4]
    assert interference_ratio(matrix) == pytest.approx(1 / 4)


def test_one_instruction_has_nothing_to_interfere_with() -> None:
    assert np.isnan(interference_ratio(np.array([[5.0]])))
    assert np.isnan(interference_ratio(np.full((2, 2), np.nan)))
    assert np.isnan(interference_ratio(np.array([[0.0, 1.0], [1.0, 0.0]])))
