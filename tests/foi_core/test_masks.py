"""Eq. 2 and Eq. 8 against values worked out by hand."""

import pytest
import torch

from foi_core import masks


def test_a_keyword_of_two_tokens_is_the_mean_of_their_columns() -> None:
    attention = torch.tensor([[[0.1, 0.2, 0.4]]])
    assert masks.keyword_map(attention, [1, 2]).item() == pytest.approx(0.3)


def test_smoothing_is_a_three_by_three_gaussian_with_reflected_edges() -> None:
    point = torch.zeros(3, 3)
    point[1, 1] = 1
    smoothed = masks.smooth(point)
    assert smoothed[1, 1].item() == pytest.approx(0.576**2)
    # By reflection an edge sees the centre twice over, and a corner twice in each direction.
    assert smoothed[1, 2].item() == pytest.approx(0.576 * 2 * 0.212)
    assert smoothed[0, 0].item() == pytest.approx((2 * 0.212) ** 2)


def test_eq_2_squares_and_normalises_gamma_times() -> None:
    # Once: [0, .25, 1]; squared and normalised again: [0, .0625, 1]; a third time: [0, .00390625, 1].
    attention_map = torch.tensor([[0.0, 0.5, 1.0]])
    assert masks.enhance(attention_map, gamma=1)[0].tolist() == pytest.approx([0, 0.25, 1])
    assert masks.enhance(attention_map, gamma=3)[0].tolist() == pytest.approx([0, 0.00390625, 1])


def test_eq_2_normalises_between_the_squarings() -> None:
    # [1, 2, 3]^2 = [1, 4, 9] -> [0, .375, 1] -> squared [0, .140625, 1]
    assert masks.enhance(torch.tensor([[1.0, 2.0, 3.0]]), gamma=2)[0].tolist() == pytest.approx([0, 0.140625, 1])


def test_tiny_attentions_do_not_underflow() -> None:
    small = torch.tensor([[1.0, 2.0, 3.0]]) * 1e-25
    assert masks.enhance(small, gamma=2)[0].tolist() == pytest.approx([0, 0.140625, 1])


def test_the_threshold_belongs_to_the_mask() -> None:
    assert masks.binarise(torch.tensor([[0.3, 0.5, 1.0]]), 0.5).tolist() == [[0, 1, 1]]


def test_a_flat_map_points_nowhere_and_gives_an_empty_mask() -> None:
    enhanced = masks.enhance(torch.full((4, 4), 0.2))
    assert enhanced.sum() == 0
    assert masks.binarise(enhanced, 0.0).sum() == 0


def test_eq_8_is_the_union_upsampled_without_new_values() -> None:
    regions = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
    union = masks.union(regions)
    assert union.tolist() == [[1, 0]]
    assert masks.interpolate(union, (2, 4)).tolist() == [[1, 1, 0, 0], [1, 1, 0, 0]]


def test_masks_reach_sizes_that_are_no_multiple_of_theirs() -> None:
    ramp = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
    assert masks.interpolate(ramp, (1, 6)).tolist() == [[[0, 0, 0, 1, 1, 1]]]


def test_entropy_is_lowest_where_attention_is_concentrated() -> None:
    point = torch.zeros(4, 4)
    point[1, 2] = 1
    assert masks.entropy(point) == pytest.approx(0, abs=1e-5)
    assert masks.entropy(torch.ones(4, 4)) == pytest.approx(2.7725887, abs=1e-4)  # ln 16


def test_the_guided_filter_only_averages_where_the_picture_is_flat() -> None:
    soft = torch.zeros(9, 9)
    soft[4, 4] = 1.0
    flat = masks.guided_filter(soft, torch.full((3, 9, 9), 0.5), radius=1, epsilon=1e-3)
    # two means over 3x3: the centre is seen by 9 windows, each of mean 1/9
    assert flat[4, 4].item() == pytest.approx(1 / 9)
    assert flat[4, 6].item() == pytest.approx(3 / 81)
    assert flat[0, 0].item() == pytest.approx(0.0, abs=1e-9)


def test_the_guided_filter_moves_a_blurred_border_to_the_pictures_edge() -> None:
    ramp = torch.linspace(1, 0, 32)[None].expand(16, 32).contiguous()
    picture = torch.zeros(3, 16, 32)
    picture[:, :, :12] = 1.0  # the object ends at column 12, the map fades until 32
    found = masks.guided_filter(ramp, picture, radius=8, epsilon=1e-4)
    jump = (found[8, 11] - found[8, 12]).item()
    assert jump > 0.15
    assert (ramp[8, 11] - ramp[8, 12]).item() < 0.04
