"""When a caller is told that nothing changed."""

import pytest
import torch

from foi_core.warnings import change_warnings, relative_change

SOURCE = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("size", "told"), [(0.05, ["nothing-changed"]), (1.0, [])])
def test_a_change_is_measured_against_the_pictures_own_spread(size: float, told: list[str]) -> None:
    change = relative_change(SOURCE + size, SOURCE, torch.ones(8, 8))
    assert change == pytest.approx(size / SOURCE.std().item(), rel=1e-4)
    assert [w.code for w in change_warnings(change)] == told


def test_only_what_changed_inside_the_masks_counts() -> None:
    inside = torch.zeros(8, 8)
    inside[:, :4] = 1
    after = SOURCE.clone()
    after[..., 4:] += 3.0
    assert relative_change(after, SOURCE, inside) == 0
    assert (relative_change(after, SOURCE, 1 - inside) or 0) > 1


def test_an_empty_region_has_its_own_warning_and_not_this_one() -> None:
    assert change_warnings(relative_change(SOURCE, SOURCE, torch.zeros(8, 8))) == []
