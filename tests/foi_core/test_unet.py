"""The UNet in our order of work: diffusers' own numbers, and what it shows and modulates."""

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from foi_core import attention
from foi_core.errors import UnsupportedCheckpoint
from foi_core.regions import Region, Regions, assemble
from foi_core.tokens import TokenisedInstruction
from foi_core.unet import UNet

SMALL: dict[str, Any] = {
    "sample_size": 32,
    "in_channels": 8,
    "block_out_channels": (16, 32),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "cross_attention_dim": 24,
    "norm_num_groups": 8,
}
TIMESTEPS = torch.tensor([1.0, 500.25, 999.0])


def source(**changed: Any) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(**(SMALL | changed)).eval().requires_grad_(False)


def inputs(side: tuple[int, int] = (32, 32)) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and text states of three rows."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 8, *side, generator=generator), torch.randn(3, 11, 24, generator=generator) * 3


@torch.inference_mode()
def run(unet: UNet, side: tuple[int, int] = (32, 32), **given: Any) -> torch.Tensor:
    latents, states = inputs(side)
    return unet(latents, unet.time_shifts(TIMESTEPS), unet.text(states), **given)  # type: ignore[no-any-return]


@torch.inference_mode()
def stock(unet: UNet2DConditionModel, side: tuple[int, int] = (32, 32)) -> torch.Tensor:
    latents, states = inputs(side)
    return unet(latents, TIMESTEPS, states).sample  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"use_linear_projection": True, "upcast_attention": True},  # Stable Diffusion 2.1
        {"layers_per_block": 3, "transformer_layers_per_block": 2},
        {"block_out_channels": (16, 16, 32), "down_block_types": ("CrossAttnDownBlock2D",) * 2 + ("DownBlock2D",),
         "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 2, "attention_head_dim": (1, 2, 4)},
    ],
)  # fmt: skip
@pytest.mark.parametrize("side", [(32, 32), (20, 12)])
def test_its_numbers_are_diffusers(changed: dict[str, Any], side: tuple[int, int]) -> None:
    theirs = source(**changed)
    expected = stock(theirs, side)
    assert (run(UNet(theirs), side) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_diffusers_unet_still_works_on_the_same_weights() -> None:
    theirs = source()
    expected, unet = stock(theirs), UNet(theirs)
    assert torch.allclose(stock(theirs), expected, atol=1e-5)
    attn = theirs.mid_block.attentions[0].transformer_blocks[0].attn2
    shared = unet.keys_and_values.weight.untyped_storage().data_ptr()
    assert attn.to_k.weight.untyped_storage().data_ptr() == attn.to_v.weight.untyped_storage().data_ptr() == shared


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"class_embed_type": "timestep"}, "class_embed_type = 'timestep'"),
        ({"act_fn": "gelu"}, "act_fn = 'gelu'"),
        ({"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift = 'scale_shift'"),
        ({"down_block_types": ("DownBlock2D", "AttnDownBlock2D")}, "block AttnDownBlock2D"),
        ({"only_cross_attention": True}, "only_cross_attention = True"),
    ],
)
def test_a_unet_of_another_kind_is_refused_by_what_it_has(changed: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=named):
        UNet(source(**changed))


def test_a_rows_prediction_does_not_depend_on_the_rows_beside_it() -> None:
    unet = UNet(source())
    (latents, states), time = inputs(), unet.time_shifts(TIMESTEPS)
    with torch.inference_mode():
        alone = unet(latents[1:2], time[1:2], unet.text(states[1:2]))
    assert torch.allclose(run(unet)[1:2], alone, atol=1e-5)


def focus(unet: UNet, mask: float) -> attention.Focus:
    """Row 0 modulated by a mask that has one value everywhere, without strengthening; row 1 is its null row."""
    text = TokenisedInstruction((0,) * 11, (0,) * 11, ((1,),), ((),), cut=False)
    found: Regions = assemble([Region(torch.full((16, 16), mask))], text, [1.0])
    covers = [attention.cross_condition_modulation(found, size)[None] for size in unet.sizes((32, 32))]
    return attention.Focus(tuple(covers), found.owner[None], torch.zeros(1, 11), null_row=1)


def test_a_full_mask_changes_nothing_an_empty_one_its_own_row_alone() -> None:
    unet = UNet(source())
    plain, full, empty = run(unet), run(unet, focus=focus(unet, 1.0)), run(unet, focus=focus(unet, 0.0))
    assert torch.allclose(full, plain, atol=1e-5)
    assert torch.allclose(empty[1:], plain[1:], atol=1e-5)
    assert (empty[0] - plain[0]).abs().max() > 1e-4


@pytest.mark.parametrize("side", [(32, 32), (24, 16)])
def test_watched_attention_is_a_distribution_over_tokens_at_the_map_level(side: tuple[int, int]) -> None:
    unet = UNet(source())
    watch = attention.Watch((0, 2), attention.map_level(unet.attention_levels, unet.native_size))
    run(unet, side, hooks=(watch,))
    h, w = side[0] // 2, side[1] // 2
    assert watch.attention.shape == (2, h, w, 11)
    assert torch.allclose(watch.attention.sum(-1), torch.ones(2, h, w), atol=1e-5)
    assert watch.maps == 4 * 2  # one layer down, one in the middle, two up; two heads each


@pytest.mark.parametrize("sample_size", [64, 96, 128])
def test_stable_diffusions_maps_come_from_its_five_layers_of_factor_four(sample_size: int) -> None:
    with torch.device("meta"):
        unet = UNet(UNet2DConditionModel(sample_size=sample_size, in_channels=8, cross_attention_dim=768).eval())
        level, seen = attention.map_level(unet.attention_levels, unet.native_size), list[int]()
        latents, text = torch.empty(1, 8, 64, 64), unet.text(torch.empty(1, 77, 768))
        count = lambda layer: seen.append(layer.level) if layer.text is not None else None  # noqa: E731
        unet(latents, unet.time_shifts(torch.empty(1)), text, hooks=(count,))
    assert (level, seen.count(level), len(seen)) == (2, 5, 16)


def test_sizes_halve_rounding_up() -> None:
    assert UNet(source()).sizes((9, 32)) == ((9, 32), (5, 16))
