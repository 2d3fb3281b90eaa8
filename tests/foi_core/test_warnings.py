"""When a caller is told that nothing changed."""

import pytest
import torch

from foi_core.tokens import TokenisedInstruction
from foi_core.warnings import edit_warnings

TEXT = TokenisedInstruction(ids=(0,), owner=(0,), keywords=((),), words=((),), cut=False)


def codes(change: torch.Tensor, inside: torch.Tensor) -> list[str]:
    source = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return [w.code for w in edit_warnings(TEXT, (), [], source + change, source, inside)]


@pytest.mark.parametrize(("size", "told"), [(0.05, ["nothing-changed"]), (1.0, [])])
def test_a_change_is_measured_against_the_pictures_own_spread(size: float, told: list[str]) -> None:
    assert codes(torch.full((1, 4, 8, 8), size), torch.ones(8, 8)) == told


def test_only_what_changed_inside_the_masks_counts() -> None:
    inside = torch.zeros(8, 8)
    inside[:, :4] = 1
    change = torch.zeros(1, 4, 8, 8)
    change[..., 4:] = 3.0
    assert codes(change, inside) == ["nothing-changed"]
    assert codes(change.flip(-1), inside) == []


def test_an_empty_region_has_its_own_warning_and_not_this_one() -> None:
    assert codes(torch.zeros(1, 4, 8, 8), torch.zeros(8, 8)) == []
