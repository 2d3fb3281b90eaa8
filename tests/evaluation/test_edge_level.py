"""A level without a tau: chosen by the picture's edges, whatever the map's scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.ideas.edge_level import EdgeLevel, best_level, border_of, candidates, edge_strength
from evaluation.scenes.bent import CUTS, bends, table

BALL = (slice(20, 44), slice(16, 40))  # of a picture of 64 x 64


def picture(inside: int = 200, outside: int = 40) -> torch.Tensor:
    """A square on a plain ground, (3, 64, 64) in [0, 1]."""
    levels = torch.full((3, 64, 64), outside / 255)
    levels[:, *BALL] = inside / 255
    return levels


def hill() -> torch.Tensor:
    """A map that falls evenly from the middle of the square to the picture's corners, (64, 64) in [0, 1]."""
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    distance = torch.maximum((rows - 31.5).abs(), (columns - 27.5).abs())
    return 1 - distance / distance.max()


def held(soft: torch.Tensor, level: float) -> float:
    """IoU of what the level holds with the square."""
    truth = torch.zeros(64, 64, dtype=torch.bool)
    truth[BALL] = True
    inside = soft >= level
    return float((inside & truth).sum() / (inside | truth).sum())


def test_edge_strength_is_a_rank_that_contrast_does_not_change() -> None:
    strong, weak = edge_strength(picture(255, 0)), edge_strength(picture(129, 125))
    assert torch.allclose(strong, weak, atol=0.05)
    assert strong[20, 28] > 0.9 > 0.5 > strong[5, 5]


def test_a_plain_picture_has_the_same_rank_everywhere() -> None:
    assert edge_strength(torch.full((3, 8, 8), 0.5)).unique().tolist() == pytest.approx([0.5])


def test_the_frame_of_a_picture_is_no_border() -> None:
    inside = torch.zeros(1, 3, 3, dtype=torch.bool)
    inside[0, :, 0] = True
    assert border_of(inside)[0].tolist() == [[True, True, False]] * 3


def test_candidates_hold_growing_shares_of_the_picture() -> None:
    soft = torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
    shares = [float((soft >= level).float().mean()) for level in candidates(soft)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx(0.8, abs=0.01)
    assert shares[-1] == pytest.approx(0.01, abs=0.005)


@pytest.mark.parametrize("power", [0.25, 0.5, 1, 2, 4])
def test_a_map_that_is_flatter_or_steeper_is_cut_at_the_same_place(power: float) -> None:
    bent = hill() ** power
    level = best_level(bent, edge_strength(picture()), reach=8)
    assert held(bent, level) > 0.8


@pytest.mark.parametrize("background", [0.2, 0.4, 0.6])
def test_a_background_does_not_let_a_mask_take_in_the_picture(background: float) -> None:
    raised = background + (1 - background) * hill()
    raised[-1, :2] = 0
    assert held(raised, best_level(raised, edge_strength(picture()), reach=8)) > 0.8


def test_a_plain_picture_leaves_the_choice_to_the_map() -> None:
    steep = (hill() > 0.625).float() + 0.1 * hill()
    assert held(steep, best_level(steep, edge_strength(torch.full((3, 64, 64), 0.5)), reach=8)) > 0.8


def test_a_map_that_points_nowhere_gives_an_empty_mask() -> None:
    region = EdgeLevel().region(torch.zeros(8, 8), 0.25, Image.new("RGB", (64, 64)))
    assert not region.mask.any()


def test_bent_maps_stay_in_their_range_and_are_the_same_each_time() -> None:
    def drawn() -> dict[str, torch.Tensor]:
        return dict(bends(hill()[::4, ::4].contiguous(), np.random.default_rng(0)))

    first, second = drawn(), drawn()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(float(soft.amin()) >= 0 and float(soft.amax()) <= 1.0001 for soft in first.values())


def test_the_table_marks_what_is_near_the_best_tau_and_counts_whole_pictures() -> None:
    near, far, full = np.array([[0.9, 0.2, 0.2]]), np.array([[0.3, 0.5, 0.2]]), np.array([[0.9, 0.95, 0.2]])
    found = {("as it is", cut): far for cut in CUTS} | {("as it is", "tau 0.4"): near, ("as it is", "Otsu"): full}
    row = table(found).splitlines()[-1]
    assert "**0.90 / 0.20**" in row
    assert "0.90 / 0.95 (1 full)" in row
    assert row.endswith("| 0.90 |")
