"""How operations are counted, and the saving that needs no clock to see."""

import torch
from diffusers import UNet2DConditionModel

from benchmarks.operations import Operations, count


def test_views_and_what_returns_its_input_do_not_count() -> None:
    x = torch.ones(4, 4)
    with Operations() as operations, torch.inference_mode():
        y = x.view(16).view(2, 8).transpose(0, 1)[:4]
        y.contiguous()
        x.contiguous().to(torch.float32).add_(1)
    assert dict(operations.counted) == {"aten::contiguous": 1, "aten::add_": 1}


def test_a_pass_of_foi_is_fewer_than_four_fifths_of_diffusers_operations_in_stable_diffusions_layout() -> None:
    stock = UNet2DConditionModel(
        sample_size=16, in_channels=8, block_out_channels=(32, 32, 64, 64), cross_attention_dim=32, norm_num_groups=8
    )
    found = count(stock.eval().requires_grad_(False))
    assert found["stock"] > 700
    assert found["ip2p"] < found["foi"] <= 0.8 * found["stock"]
