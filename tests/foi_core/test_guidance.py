"""Eq. 1 and Eq. 9 against values worked out by hand."""

import torch

from foi_core.guidance import disentangled_guidance, ip2p_guidance


def predictions() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    e00, eI0, eIT = (torch.full((1, 1, 1, 2), value) for value in (1.0, 3.0, 4.0))
    return e00, eI0, eIT


def test_eq_1_adds_both_guidance_directions() -> None:
    # 1 + 1.5 (3 - 1) + 7.5 (4 - 3) = 11.5
    assert torch.equal(ip2p_guidance(*predictions(), 1.5, 7.5), torch.full((1, 1, 1, 2), 11.5))


def test_eq_9_adds_the_instruction_only_inside_the_union() -> None:
    union = torch.tensor([[[[1.0, 0.0]]]])
    # inside 11.5 as Eq. 1; outside 1 + 1.5 (3 - 1) = 4
    assert torch.equal(disentangled_guidance(*predictions(), 1.5, 7.5, union), torch.tensor([[[[11.5, 4.0]]]]))


def test_each_edit_of_a_batch_has_its_own_scales() -> None:
    e00, eI0, eIT = (torch.cat([e, e]) for e in predictions())
    s_I = torch.tensor([1.0, 2.0])[:, None, None, None]
    s_T = torch.tensor([0.0, 3.0])[:, None, None, None]
    # 1 + 1 (2) + 0 = 3;  1 + 2 (2) + 3 (1) = 8
    assert ip2p_guidance(e00, eI0, eIT, s_I, s_T)[:, 0, 0, 0].tolist() == [3.0, 8.0]
