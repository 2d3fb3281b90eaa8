"""From regions to the masks of tokens, layers and latents."""

import torch
from PIL import Image

from foi_core import regions
from foi_core.mask_sources import KeywordAttention, Seen
from foi_core.tokens import TokenisedInstruction

TEXT = TokenisedInstruction(ids=(0,) * 4, owner=(2, 0, 1, 2), keywords=((1,), (2,)), words=((), ()), cut=False)


def two_regions() -> regions.Regions:
    """Over three queries: T_1 acts on the first, T_2 on the second."""
    each = [regions.Region(torch.tensor([[1.0, 0.0, 0.0]])), regions.Region(torch.tensor([[0.0, 1.0, 0.0]]))]
    return regions.assemble(each, TEXT, [1.0, 5.0])


def masks_of_tokens(found: regions.Regions, size: tuple[int, int]) -> list[list[int]]:
    """M of Eq. 3, (queries, tokens)."""
    return ((found.cover(size)[:, None] & found.owner) != 0).int().tolist()  # type: ignore[no-any-return]


def test_m_is_each_mask_over_its_own_tokens_and_the_union_over_the_rest() -> None:
    assert masks_of_tokens(two_regions(), (1, 3)) == [[1, 1, 0, 1], [1, 0, 1, 1], [0, 0, 0, 0]]


def test_where_regions_overlap_every_instruction_acts() -> None:
    each = [regions.Region(torch.tensor([[1.0, 1.0, 0.0]])), regions.Region(torch.tensor([[0.0, 1.0, 1.0]]))]
    found = regions.assemble(each, TEXT, [1.0, 1.0])
    assert masks_of_tokens(found, (1, 3)) == [[1, 1, 0, 1], [1, 1, 1, 1], [1, 0, 1, 1]]


def test_alpha_is_each_instructions_intensity_over_its_own_tokens_and_one_elsewhere() -> None:
    assert two_regions().alpha.tolist() == [1, 1, 5, 1]


def test_the_union_reaches_the_latents_resolution() -> None:
    assert two_regions().union((2, 6)).tolist() == [[1, 1, 1, 1, 0, 0]] * 2


def test_a_callers_mask_is_read_from_its_picture_where_the_grid_is_finer_than_the_map() -> None:
    picture = Image.new("L", (64, 64))
    picture.paste(255, (0, 0, 8, 64))
    region = regions.Region(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), picture)
    assert region.at((8, 8)).sum(dim=1).tolist() == [1.0] * 8
    assert region.at((2, 2)).tolist() == [[1, 0], [1, 0]]
    assert region.picture((64, 64)).tobytes() == picture.tobytes()


def test_the_word_whose_attention_is_most_concentrated_is_the_keyword_of_last_resort() -> None:
    seen = torch.full((4, 4, 3), 0.1)
    seen[1, 1, 2] = 1.0
    words = (("spread", (1,)), ("point", (2,)))
    assert regions.most_concentrated(words, seen) == ("point", (2,))


def test_a_keyword_that_was_cut_off_has_no_map() -> None:
    seen = Seen(torch.rand(4, 4, 3), torch.rand(4, 8, 8), 0)
    assert KeywordAttention().soft_map(seen, ()).sum() == 0
