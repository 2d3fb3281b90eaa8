"""Who is modulated where, what the masks are read from, and which layers' attention that is."""

import math

import pytest
import torch

from foi_core import attention
from foi_core.regions import Region, Regions


def test_eq_4_scores_are_scaled_products_in_float32() -> None:
    queries = torch.full((1, 1, 4), 200.0, dtype=torch.float16)
    keys = torch.full((1, 2, 4), 200.0, dtype=torch.float16)
    # 4 * 200 * 200 / 2 = 80,000: beyond half precision
    assert attention.scores(queries, keys).tolist() == [[[80000.0, 80000.0]]]


def test_eq_7_is_a_twentieth_of_the_fourth_power() -> None:
    assert attention.xi(1.0) == pytest.approx(0.05)
    assert attention.xi(0.8) == pytest.approx(0.02048)


def test_the_papers_modulation_takes_the_null_outside_all_regions_too_and_the_exclusive_one_does_not() -> None:
    """Three cells: T_1's region, T_2's, and neither's; token 0 is T_1's, token 1 T_2's. One head, d = 1."""
    cells = (Region(torch.tensor([[1.0, 0.0, 0.0]])), Region(torch.tensor([[0.0, 1.0, 0.0]])))
    found = Regions(cells, torch.tensor([1, 2], dtype=torch.int32), torch.tensor([1.0, 2.0]))
    query = torch.ones(2, 1, 3, 1)  # an (I, T) row and its (I, null) row
    key = torch.tensor([[[[1.0], [3.0]]], [[[-50.0], [-50.0]]]])
    value = torch.tensor([[[[1.0], [0.0]]], [[[9.0], [9.0]]]])

    def share_of_t1(policy: attention.AttentionPolicy) -> list[float]:
        cover = policy(found, (1, 3))[None]
        focus = attention.Focus((cover,), found.owner[None], found.alpha[None] * 0.5, null_row=1)
        out = attention.attend(query, key, value, focus, level=0)
        assert out[1].unique().tolist() == [9.0], "the null row is left alone"
        return out[0, 0, :, 0].tolist()  # type: ignore[no-any-return]

    # T_1's region: X_1 = 1 + .5 (3 - 1) = 2 against the null's -50; T_2's: the null's -50 against X_2
    neithers = 1 / (1 + math.exp(2))  # plain softmax of 1 and 3
    assert share_of_t1(attention.exclusive_modulation) == pytest.approx([1.0, 0.0, neithers], abs=1e-6)
    # ... and outside both, the null's -50 and -50
    assert share_of_t1(attention.cross_condition_modulation) == pytest.approx([1.0, 0.0, 0.5], abs=1e-6)


def layer(probabilities: torch.Tensor, level: int = 0, text: slice | None = slice(0)) -> attention.Layer:
    """A layer of one row whose attention is `probabilities` (heads, queries, tokens)."""
    heads, queries, tokens = probabilities.shape
    key = torch.eye(tokens).expand(1, heads, -1, -1)
    query = probabilities.log()[None] * tokens**0.5
    return attention.Layer(query, key, key, query, (1, queries), level, text)


def test_eq_2_averages_over_the_levels_layers_and_heads_each_counting_once() -> None:
    watch = attention.Watch((0,), level=0)
    watch(layer(torch.tensor([[[0.1, 0.9], [0.4, 0.6]]])))
    watch(layer(torch.tensor([[[0.3, 0.7], [0.8, 0.2]], [[0.6, 0.4], [0.1, 0.9]]])))
    watch(layer(torch.tensor([[[0.9, 0.1]]]), level=1))
    watch(layer(torch.tensor([[[0.9, 0.1], [0.9, 0.1]]]), text=None))  # self-attention
    # (.1 + .3 + .6) / 3, (.9 + .7 + .4) / 3; (.4 + .8 + .1) / 3, (.6 + .2 + .9) / 3
    assert torch.allclose(watch.attention, torch.tensor([[[[1.0, 2.0], [1.3, 1.7]]]]) / 3)


def test_a_watch_that_saw_nothing_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="give the watch to a pass"):
        _ = attention.Watch((0,), level=0).attention


def test_a_rewriting_replaces_its_own_rows_cross_attention_alone() -> None:
    one = Regions((Region(torch.ones(1, 2)),), torch.tensor([1]), torch.ones(1))
    rewrite = attention.Rewrite(lambda layer, this: layer.out[this.row] + 5, attention.FocusRow(0, 1, one))
    out = torch.zeros(2, 1, 2, 1)
    crossed = attention.Layer(out, out, out, out.clone(), (1, 2), 0, slice(0))
    itself = attention.Layer(out, out, out, out.clone(), (1, 2), 0, None)
    rewrite(crossed)
    rewrite(itself)
    assert (crossed.out[0].unique().tolist(), crossed.out[1].unique().tolist()) == ([5.0], [0.0])
    assert not itself.out.any()
