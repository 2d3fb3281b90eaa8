"""The ideas past the paper, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from demo.data import TUNING_SEED
from evaluation.ideas.attention_policies import apart, null_outside
from evaluation.ideas.composites import hard_edged
from evaluation.ideas.diffedit import diffedit_mask
from evaluation.ideas.relevance import Relevance, RelevanceTimesAttention, relevance
from evaluation.ideas.self_attention import SelfAttentionSpread
from evaluation.ideas.upsampled import Upsampled, otsu
from evaluation.scenes.cases import Case, cases
from evaluation.scenes.metrics import iou
from foi_core import SubInstruction, attention
from foi_core.engine import Engine
from foi_core.mask_sources import KeywordAttention, Seen
from foi_core.regions import Region, Regions
from tests.support import picture

ANY = Image.new("RGB", (8, 8))


def seen(attended: list[list[float]], difference: torch.Tensor | None = None) -> Seen:
    """Token 1 is attended to as given, token 0 not at all."""
    column = torch.tensor(attended)
    difference = torch.zeros(1, *column.shape) if difference is None else difference
    return Seen(torch.stack([torch.zeros_like(column), column], dim=-1), difference, 0)


# The mask sources.


def test_relevance_clips_what_lies_far_beyond_the_quartiles_and_scales_the_rest() -> None:
    # Summed over channels: 0, 1, 2, 3, 100. Quartiles 1 and 3, so all beyond 3 + 1.5 * 2 = 6 is 6.
    difference = torch.tensor([[[0.0, -1.0, 1.0, 1.5, 60.0]], [[0.0, 0.0, -1.0, -1.5, -40.0]]])
    assert relevance(difference)[0].tolist() == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 1])


def test_relevance_clips_below_too() -> None:
    # 0, 97, 98, 99, 100: quartiles 97 and 99, so all below 97 - 1.5 * 2 = 94 is 94.
    difference = torch.tensor([[[0.0, 97.0, 98.0, 99.0, 100.0]]])
    assert relevance(difference)[0].tolist() == pytest.approx([0, 3 / 6, 4 / 6, 5 / 6, 1])


def test_a_relevance_mask_needs_no_keyword() -> None:
    soft = Relevance().soft_map(seen([[0.0, 0.0, 0.0]], torch.tensor([[[0.0, 2.0, 4.0]]])), ())
    assert soft.tolist() == [[0.0, 0.5, 1.0]]
    assert Relevance().region(soft, 0.5, ANY).mask.tolist() == [[0.0, 1.0, 1.0]]


def test_relevance_times_attention_wants_both() -> None:
    class GivenAttention(KeywordAttention):
        def soft_map(self, seen: Seen, tokens: tuple[int, ...]) -> torch.Tensor:
            return seen.attention[..., tokens[0]]

    # Relevance is 1, 0, 1, .25.
    both = seen([[0.25, 1.0, 0.0, 0.64]], torch.tensor([[[4.0, 0.0, 4.0, 1.0]]]))
    soft = RelevanceTimesAttention(GivenAttention()).soft_map(both, (1,))
    # sqrt(.25 * 1) = .5, 0, 0 and sqrt(.64 * .25) = .4, over .5
    assert soft[0].tolist() == pytest.approx([1, 0, 0, 0.8])


def test_relevance_times_attention_has_the_finer_maps_size() -> None:
    both = seen([[0.0, 1.0], [0.0, 0.0]], torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert RelevanceTimesAttention().soft_map(both, (1,)).shape == (8, 8)


def test_otsus_threshold_lies_between_two_classes_whatever_their_sizes() -> None:
    rng = np.random.default_rng(0)
    levels = np.concatenate([rng.uniform(0.1, 0.2, 900), rng.uniform(0.7, 0.9, 100)])
    assert 0.2 < otsu(levels) <= 0.7


def test_otsu_puts_a_middle_level_with_the_nearer_class() -> None:
    # 0 x 4, 3 x 1, 8 x 4. {0}{3, 8}: 4 * 5 * 7^2 = 980; {0, 3}{8}: 5 * 4 * (8 - .6)^2 = 1095: 3 is below the cut.
    assert 3 < otsu(np.array([0.0] * 4 + [3.0] + [8.0] * 4)) <= 8
    # 0 x 4, 5 x 1, 8 x 4: the mirror image, 5 is above the cut.
    assert 0 < otsu(np.array([0.0] * 4 + [5.0] + [8.0] * 4)) <= 5


@pytest.mark.parametrize("by_otsu", [False, True])
def test_an_upsampled_mask_has_the_pictures_size_and_is_finer_than_the_cells(by_otsu: bool) -> None:
    soft = torch.zeros(4, 4)
    soft[1, 1], soft[1, 2] = 1.0, 0.5
    image = Image.new("RGB", (64, 48))
    drawn = Upsampled(KeywordAttention(), by_otsu).region(soft, 0.4, image).picture(image.size)
    inside = np.asarray(drawn) > 0
    assert drawn.size == image.size
    assert inside[18, 24]  # the middle of the cell that is 1
    assert not inside[42, 8]  # and of one that is 0
    whole_cells = inside.reshape(4, 12, 4, 16).mean(axis=(1, 3))
    assert ((whole_cells > 0) & (whole_cells < 1)).any()


def test_otsus_cut_does_not_depend_on_the_threshold_and_the_other_is_the_threshold() -> None:
    soft = torch.zeros(4, 4)
    soft[1, 1], soft[3, 3] = 1.0, 0.6
    image = Image.new("RGB", (64, 64))

    def area(tau: float, by_otsu: bool) -> int:
        drawn = Upsampled(KeywordAttention(), by_otsu).region(soft, tau, image).picture(image.size)
        return int((np.asarray(drawn) > 0).sum())

    assert area(0.3, by_otsu=False) > area(0.8, by_otsu=False) > 0
    assert area(0.3, by_otsu=True) == area(0.8, by_otsu=True) > 0


def test_an_upsampled_mask_of_nothing_is_empty_even_at_a_threshold_of_zero() -> None:
    for by_otsu in (False, True):
        region = Upsampled(KeywordAttention(), by_otsu).region(torch.zeros(4, 4), 0.0, ANY)
        assert region.picture(ANY.size).getbbox() is None


def test_an_upsampled_mask_starts_from_its_sources_map() -> None:
    looked = seen([[0.1, 0.9], [0.3, 0.2]])
    source = KeywordAttention(gamma=2)
    assert torch.equal(Upsampled(source).soft_map(looked, (1,)), source.soft_map(looked, (1,)))


def test_the_keywords_map_is_spread_along_self_attention() -> None:
    attended = [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    a = KeywordAttention(gamma=0).soft_map(seen(attended), (1,)).flatten()
    S = torch.rand(9, 9, generator=torch.Generator().manual_seed(0))
    once = S / S.sum(dim=1, keepdim=True) @ a
    twice = S / S.sum(dim=1, keepdim=True) @ once
    for times, spread in ((1, once), (2, twice)):
        expected = (spread - spread.min()) / (spread.max() - spread.min())
        soft = SelfAttentionSpread({0: S}, times).soft_map(seen(attended), (1,))
        assert torch.allclose(soft, expected.view(3, 3), atol=1e-6)


def test_a_cell_that_attends_to_the_keywords_cell_is_drawn_in_by_self_attention() -> None:
    """By hand: cell 3 looks at cell 0 alone, and every other cell at itself; the sums of rows do not count."""
    a = KeywordAttention(gamma=0).soft_map(seen([[1.0, 0.0, 0.0, 0.0]]), (1,))[0]
    assert a[0] == 1
    assert a[3] == 0
    S = 5 * torch.eye(4)  # five layers and heads
    S[3] = torch.tensor([5.0, 0.0, 0.0, 0.0])
    soft = SelfAttentionSpread({0: S}).soft_map(seen([[1.0, 0.0, 0.0, 0.0]]), (1,))[0]
    spread = [1.0, float(a[1]), float(a[2]), 1.0]
    low = min(spread)
    assert soft.tolist() == pytest.approx([(value - low) / (1 - low) for value in spread])


def test_each_instruction_is_spread_by_its_own_rows_self_attention() -> None:
    one, other = torch.eye(4), torch.eye(4).flip(0)
    looked = seen([[1.0, 0.0, 0.0, 0.0]])
    source = SelfAttentionSpread({0: one, 1: other})
    first = source.soft_map(looked, (1,))[0]
    second = source.soft_map(Seen(looked.attention, looked.difference, 1), (1,))[0]
    assert first.argmax() == 0
    assert second.tolist() == first.flip(0).tolist()


# The attention policies, over three cells: T_1's region, T_2's, and neither's.


def layer_and_row(overlap: bool = False) -> tuple[attention.Layer, attention.FocusRow]:
    """One head, d = 2; row 0 is the instruction's, row 1 the null's. All numbers differ."""
    generator = torch.Generator().manual_seed(0)
    query, out = (torch.randn(2, 1, 3, 2, generator=generator) for _ in range(2))
    key, value = (torch.randn(2, 1, 4, 2, generator=generator) for _ in range(2))
    own_text = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[4.0, 0.0], [0.0, 9.0]]])  # (k, tokens, width)
    second = [1.0, 1.0, 0.0] if overlap else [0.0, 1.0, 0.0]
    found = Regions(
        (Region(torch.tensor([[1.0, 0.0, 0.0]])), Region(torch.tensor([second]))),
        torch.tensor([3, 1, 2, 3]),
        torch.tensor([1.0, 1.0, 2.0, 1.0]),
    )
    layer = attention.Layer(query, key, value, out, (1, 3), 0, slice(0, 4))
    return layer, attention.FocusRow(0, 1, found, apart=torch.cat([own_text, own_text], dim=-1))  # keys, values


def test_null_outside_is_the_rows_own_output_in_all_regions_and_the_nulls_elsewhere() -> None:
    layer, row = layer_and_row()
    found = null_outside(layer, row)
    assert torch.equal(found[:, :2], layer.out[0][:, :2])
    assert torch.equal(found[:, 2], layer.out[1][:, 2])


def by_hand(query: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """softmax(q K^T / sqrt(2)) V with K = V = the text, which `row.apart` has twice."""
    text = text[:, :2]
    x, y = (float(query @ token) / math.sqrt(2) for token in text)
    share = 1 / (1 + math.exp(y - x))
    return share * text[0] + (1 - share) * text[1]


def test_apart_every_region_attends_to_its_own_text_alone() -> None:
    layer, row = layer_and_row()
    assert row.apart is not None
    found = apart(layer, row)[0]
    for cell in (0, 1):
        assert torch.allclose(found[cell], by_hand(layer.query[0, 0, cell], row.apart[cell]), atol=1e-6)
    assert torch.equal(found[2], layer.out[1, 0, 2])


def test_apart_regions_that_overlap_share_the_cell_equally() -> None:
    layer, row = layer_and_row(overlap=True)
    assert row.apart is not None
    both = [by_hand(layer.query[0, 0, 0], text) for text in row.apart]
    assert torch.allclose(apart(layer, row)[0, 0], (both[0] + both[1]) / 2, atol=1e-6)


# The compositor and DiffEdit's mask.


def test_a_hard_edge_takes_every_pixel_whole_from_one_of_both() -> None:
    edited, original = picture(), Image.new("RGB", (48, 32), "red")
    mask = Image.new("L", (48, 32))
    mask.paste(255, (10, 5, 30, 20))
    expected = np.asarray(original).copy()
    expected[5:20, 10:30] = np.asarray(edited)[5:20, 10:30]
    assert np.array_equal(np.asarray(hard_edged(edited, original, mask)), expected)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load("demo", "cpu")


def of_kind(kind: str) -> Case:
    return next(case for case in cases(TUNING_SEED, {1: 12}) if case.kinds == (kind,))


def test_diffedits_mask_finds_the_sky_in_a_picture_of_any_size(engine: Engine) -> None:
    case = of_kind("sky")
    image = Image.fromarray(case.source).resize((160, 160))
    truth = np.asarray(Image.fromarray(case.regions[0]).resize(image.size))
    found = diffedit_mask(engine, image, SubInstruction(case.texts[0]), 0)
    assert found.mode == "L"
    assert found.size == image.size
    assert {level for _, level in found.getcolors() or ()} == {0, 255}
    assert iou(np.asarray(found) > 0, truth) > 0.7  # 0.90 at 128 x 128; a mask of everything would have 0.41


def test_diffedits_mask_is_the_same_at_the_same_seed_and_another_at_another(engine: Engine) -> None:
    case = of_kind("replace")
    image, part = Image.fromarray(case.source), SubInstruction(case.texts[0])
    first, again, other = (np.asarray(diffedit_mask(engine, image, part, seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert iou(first > 0, case.regions[0]) > 0.3
