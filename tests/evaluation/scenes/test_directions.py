"""Ours beside the paper's: only a slope that is surely up or down agrees or disagrees."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.scenes import directions as d
from evaluation.scenes.columns import ALL, PSNR_LATENT
from tests.evaluation.scenes.made_up import record


def test_rank_correlation_is_spearmans() -> None:
    assert d.rank_correlation([1, 2, 3], [10, 20, 1000]) == 1
    assert d.rank_correlation([1, 2, 3], [3, 2, 1]) == -1
    # Ranks 1, 2, 3, 4 against 2, 1, 4, 3: 1 - 6 * 4 / (4 * 15) = 0.6.
    assert d.rank_correlation([1, 2, 3, 4], [2, 1, 4, 3]) == pytest.approx(0.6)


def test_equal_values_share_their_rank_and_a_constant_has_no_correlation() -> None:
    # Ranks -1, 0, 1 against -1, 0.5, 0.5: 1.5 / sqrt(2 * 1.5).
    assert d.rank_correlation([1, 2, 3], [0, 5, 5]) == pytest.approx(1.5 / np.sqrt(3))
    assert d.rank_correlation([1, 2, 3], [7, 7, 7]) == 0


@pytest.mark.parametrize(
    ("sweep", "preservation", "obedience"),
    [(d.TABLE_1_SINGLE, 1, 1), (d.TABLE_1_MULTI, 1, 1), (d.TABLE_3, -1, -1), (d.TABLE_4, 1, 1), (d.TABLE_5, 1, 1)],
)
def test_the_papers_measures_of_one_kind_point_the_same_way(sweep: d.Sweep, preservation: int, obedience: int) -> None:
    for measures, sign in ((sweep.preservation, preservation), (sweep.obedience, obedience)):
        for numbers in measures.values():
            assert len(numbers) == len(sweep.values)
            assert np.sign(d.rank_correlation(range(len(numbers)), numbers)) == sign


def test_an_interval_around_zero_is_flat_and_otherwise_its_sign_decides() -> None:
    rising, falling = [0.1, 0.2, 0.3], [0.3, 0.2, 0.1]
    assert d.agreement((1.0, 0.5, 1.5), rising) == "agree"
    assert d.agreement((1.0, 0.5, 1.5), falling) == "disagree"
    assert d.agreement((-1.0, -1.5, -0.5), falling) == "agree"
    assert d.agreement((1.0, -0.1, 2.1), rising) == "flat"
    assert d.agreement((float("nan"),) * 3, rising) == "flat"


def test_the_slope_is_that_of_least_squares_in_each_scene() -> None:
    # Scene 1: 30, 32, 34, so 2 a setting; scene 2: 30, 36, 30, so 0.
    psnr = {(1, "a"): 30.0, (1, "b"): 32.0, (1, "c"): 34.0, (2, "a"): 30.0, (2, "b"): 36.0, (2, "c"): 30.0}
    records = [record(row, case, "sky", [0.1], psnr=value) for (case, row), value in psnr.items()]
    assert d.slope(records, ["a", "b", "c"], PSNR_LATENT) == pytest.approx((1, 0, 2))
    assert d.slope(records, ["c", "b", "a"], PSNR_LATENT) == pytest.approx((-1, -2, 0))


def test_only_edits_that_every_row_has_count_for_the_slope() -> None:
    records = [record(row, 1, "sky", [0.1], psnr=value) for row, value in (("a", 20.0), ("b", 21.0))]
    records += [record("a", 2, "sky", [0.1], psnr=90.0), record("other", 1, "sky", [0.1])]
    records += [record("a", 1, "sky", [0.1], psnr=50.0, sample=1)]
    assert d.slope(records, ["a", "b"], PSNR_LATENT) == pytest.approx((1, 1, 1))


def test_success_has_its_slope_in_points() -> None:
    records = [record("a", 1, "sky", [0.9]), record("b", 1, "sky", [0.1])]
    assert d.slope(records, ["a", "b"], ALL) == pytest.approx((100, 100, 100))


def test_one_curves_slope_can_be_taken_from_anothers() -> None:
    psnr = {"foi 1": 30.0, "foi 2": 29.0, "ip2p 1": 30.0, "ip2p 2": 25.0}
    records = [record(row, 1, "sky", [0.1], psnr=value) for row, value in psnr.items()]
    ours = d.slope(records, ["foi 1", "foi 2"], PSNR_LATENT, minus=["ip2p 1", "ip2p 2"])
    assert ours == pytest.approx((4, 4, 4))
    assert d.claim_line(d.FIGURE_6D, ours, "dB") == (
        f"{d.FIGURE_6D}: **agree** (+4.00 [+4.00, +4.00] dB from one setting to the next).\n"
    )


def test_the_papers_numbers_stand_beside_ours_with_a_verdict_on_each() -> None:
    names = [f"mask at {percent}%" for percent in (0, 25, 50, 75, 100)]
    records = [
        record(name, case, "sky", [0.1], psnr=40.0 - i + 0.1 * case)
        for i, name in enumerate(names)
        for case in range(5)
    ]
    text = d.direction_table(records, d.TABLE_3, names)
    header, _, first, *_ = text.splitlines()
    assert header.count("|") == 6
    assert "our median PSNR away from the regions, dB" in header
    assert first == "| 0 | 0.9260 | 40.2 [40.0, 40.4] | 0.1745 | 100 |"
    assert text.endswith(
        "Table 3, by the slopes of our means: "
        "preservation **agree** (-1.00 [-1.00, -1.00] dB from one setting to the next); "
        "obedience **flat** (+0.00 [+0.00, +0.00] points from one setting to the next).\n"
    )


def test_a_sweep_wants_a_row_for_each_of_the_papers_values() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        d.direction_table([record("a", 1, "sky", [0.1])], d.TABLE_3, ["a"])
