"""Eq. 3-7 against values worked out by hand, and the rules that keep a UNet's attention clean."""

import math
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from foi_core import attention
from foi_core.regions import Region, Regions
from tests.tiny_model import build_tiny_model


def test_eq_4_scores_are_scaled_products_in_float32() -> None:
    queries = torch.full((1, 1, 4), 200.0, dtype=torch.float16)
    keys = torch.full((1, 2, 4), 200.0, dtype=torch.float16)
    # 4 * 200 * 200 / 2 = 80,000: beyond half precision
    assert attention.scores(queries, keys).tolist() == [[[80000.0, 80000.0]]]


def test_eq_6_lifts_every_score_towards_its_own_querys_maximum() -> None:
    X = torch.tensor([[[1.0, 3.0], [10.0, 0.0]]])
    dX = attention.strengthening(X, alpha=torch.tensor([1.0, 2.0]), xi_t=0.5)
    # 1 * .5 * (3 - 1) = 1, 0; 0, 2 * .5 * (10 - 0) = 10
    assert dX.tolist() == [[[1.0, 0.0], [0.0, 10.0]]]


def test_eq_7_is_a_twentieth_of_the_fourth_power() -> None:
    assert attention.xi(1.0) == pytest.approx(0.05)
    assert attention.xi(0.8) == pytest.approx(0.02048)


def test_eq_3_takes_the_instruction_inside_and_the_null_instruction_outside() -> None:
    X, Y = torch.tensor([[[0.0, math.log(3)]]]), torch.tensor([[[math.log(4), 0.0]]])
    one = torch.ones(2)
    inside = attention.modulated_attention(X, Y, torch.ones(1, 2), one, 0.0)
    outside = attention.modulated_attention(X, Y, torch.zeros(1, 2), one, 0.0)
    assert inside[0, 0].tolist() == pytest.approx([0.25, 0.75])
    assert outside[0, 0].tolist() == pytest.approx([0.8, 0.2])


def test_eq_3_mixes_scores_token_by_token_and_strengthens_only_inside() -> None:
    X, Y = torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[5.0, 1.0]]])
    M = torch.tensor([[1.0, 0.0]])
    # token 0: X + .5 (2 - 0) = 1; token 1: Y = 1 -> equal shares
    assert attention.modulated_attention(X, Y, M, torch.ones(2), 0.5)[0, 0].tolist() == pytest.approx([0.5, 0.5])


def test_eq_5_takes_queries_and_keys_from_the_null_instruction_and_values_from_the_instruction(tmp_path: Path) -> None:
    """Outside the mask, by hand: softmax(Q_I0 K_I0^T / sqrt(d)) V_IT."""
    unet = small_unet(tmp_path)
    cross_attention = attention.CrossAttention(unet)
    layer = unet.mid_block.attentions[0].transformer_blocks[0].attn2
    generator = torch.Generator().manual_seed(0)
    hidden, text = torch.randn(2, 256, 32, generator=generator), torch.randn(2, 77, 32, generator=generator) * 3
    plan = attention.Plan((32, 32), focus=(focus(0.0),))
    with torch.inference_mode(), cross_attention.apply(plan):
        ours = layer(hidden, encoder_hidden_states=text)[0]
        query, key, value = layer.to_q(hidden[1]), layer.to_k(text[1]), layer.to_v(text[0])
        heads = [t.unflatten(-1, (layer.heads, -1)).transpose(0, 1) for t in (query, key, value)]  # (heads, n, d)
        q, k, v = heads
        by_hand = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v
        expected = layer.to_out[0](by_hand.transpose(0, 1).flatten(1))
    assert torch.allclose(ours, expected, atol=1e-5)


def test_exclusive_modulation_shuts_an_instruction_out_of_anothers_region_and_nowhere_else() -> None:
    """Three cells: T_1's region, T_2's, and neither's; token 0 is T_1's, token 1 T_2's. One head, d = 1."""
    cells = (Region(torch.tensor([[1.0, 0.0, 0.0]])), Region(torch.tensor([[0.0, 1.0, 0.0]])))
    found = Regions(cells, torch.tensor([0, 1]), torch.tensor([1.0, 2.0]))
    query, key = torch.ones(2, 1, 3, 1), torch.tensor([[[[1.0], [3.0]]], [[[-50.0], [-50.0]]]])
    value = torch.tensor([[[[1.0], [0.0]]], [[[9.0], [9.0]]]])
    layer = attention.Layer(None, query, key, value, query, (1, 3))  # type: ignore[arg-type]  # projections not used
    row = attention.FocusRow(0, 1, found, xi_t=0.5, policy=attention.exclusive_modulation)
    share_of_t1 = attention.exclusive_modulation(layer, row)[0, :, 0].tolist()
    # own region: X_1 = 1 + .5 (3 - 1) = 2 against the null's -50; neither's: plain softmax of 1 and 3
    assert share_of_t1 == pytest.approx([1.0, 0.0, 1 / (1 + math.exp(2))], abs=1e-6)


def test_eq_2_averages_over_layers_and_heads_each_counting_once() -> None:
    plan = attention.Plan((1, 2), watch=(1,))
    one_head = torch.tensor([[[[0.0, 1.0], [0.4, 0.6]]]])  # (rows, heads, queries, tokens)
    two_heads = torch.tensor([[[[0.3, 0.7], [1.0, 0.0]], [[0.6, 0.4], [0.1, 0.9]]]])
    plan.collect(one_head)
    plan.collect(two_heads)
    # (0 + .3 + .6) / 3, (1 + .7 + .4) / 3; (.4 + 1 + .1) / 3, (.6 + 0 + .9) / 3
    assert torch.allclose(plan.attention(0), torch.tensor([[[[0.3, 0.7], [0.5, 0.5]]]]))


def small_unet(tmp_path: Path) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(build_tiny_model(tmp_path) / "unet", low_cpu_mem_usage=False).eval()


def run(unet: UNet2DConditionModel, text: torch.Tensor, side: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 8, side, side, generator=generator).expand(len(text), -1, -1, -1)
    with torch.inference_mode():
        return unet(latents, torch.tensor(500.0), encoder_hidden_states=text).sample  # type: ignore[no-any-return]


def text_rows() -> torch.Tensor:
    instruction, null = torch.randn(2, 1, 77, 32, generator=torch.Generator().manual_seed(2)) * 3
    return torch.cat([instruction, null])


def test_without_a_plan_the_unet_is_the_stock_one(tmp_path: Path) -> None:
    unet = small_unet(tmp_path)
    before = run(unet, text_rows())
    attention.CrossAttention(unet)
    assert torch.allclose(run(unet, text_rows()), before, atol=1e-6)


def focus(everywhere: float) -> attention.FocusRow:
    """Row 0 modulated by a mask that has one value everywhere; row 1 is its null instruction."""
    mask = Region(torch.full((16, 16), everywhere))
    found = Regions((mask,), torch.zeros(77, dtype=torch.long), torch.ones(77))
    return attention.FocusRow(0, 1, found, xi_t=0.0, policy=attention.cross_condition_modulation)


def test_a_full_mask_changes_nothing_and_rows_without_a_mask_are_untouched(tmp_path: Path) -> None:
    unet = small_unet(tmp_path)
    cross_attention = attention.CrossAttention(unet)
    plain = run(unet, text_rows())
    plan = attention.Plan((32, 32), focus=(focus(1.0),))
    with cross_attention.apply(plan):
        full = run(unet, text_rows())
    plan = attention.Plan((32, 32), focus=(focus(0.0),))
    with cross_attention.apply(plan):
        empty = run(unet, text_rows())
    assert torch.allclose(full, plain, atol=1e-5)
    assert torch.allclose(empty[1], plain[1], atol=1e-5)
    assert (empty[0] - plain[0]).abs().max() > 1e-4


def test_a_failed_pass_leaves_no_plan_behind(tmp_path: Path) -> None:
    unet = small_unet(tmp_path)
    cross_attention = attention.CrossAttention(unet)
    with pytest.raises(ZeroDivisionError), cross_attention.apply(attention.Plan((32, 32), watch=(0,))):
        raise ZeroDivisionError
    assert cross_attention.plan is None


@pytest.mark.parametrize("side", [32, 24])
def test_watched_attention_is_a_distribution_over_tokens_at_the_map_level(tmp_path: Path, side: int) -> None:
    unet = small_unet(tmp_path)
    cross_attention = attention.CrossAttention(unet)
    plan = attention.Plan((side, side), watch=(0,))
    with cross_attention.apply(plan):
        run(unet, text_rows(), side)
    seen = plan.attention(cross_attention.level)
    assert seen.shape == (1, side // 2, side // 2, 77)
    assert torch.allclose(seen.sum(-1), torch.ones(1, side // 2, side // 2), atol=1e-5)
    assert plan.maps == 4 * 2  # one layer down, one in the middle, two up; two heads each


@pytest.mark.parametrize(("sample_size", "factor", "layers"), [(64, 4, 5), (96, 4, 5), (128, 4, 5)])
def test_stable_diffusions_maps_come_from_its_five_layers_of_factor_four(
    sample_size: int, factor: int, layers: int
) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=sample_size, in_channels=8, cross_attention_dim=768)
    level = attention.map_level(unet)
    assert 2**level == factor
    assert sum(at == level for at in attention.layer_levels(unet).values()) == layers
