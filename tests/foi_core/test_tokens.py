"""From words to token positions."""

from demo.edits import vocabulary
from demo.models import build_tokenizer
from foi_core import SubInstruction
from foi_core.tokens import TokenisedInstruction, tokenise

TOKENIZER = build_tokenizer(vocabulary())


def tokens_of(*parts: tuple[str, str | None]) -> TokenisedInstruction:
    return tokenise(TOKENIZER, tuple(SubInstruction(t) for t, _ in parts), tuple(k for _, k in parts))


def pieces(ids: tuple[int, ...], indices: tuple[int, ...]) -> list[str]:
    return TOKENIZER.convert_ids_to_tokens([ids[i] for i in indices])  # type: ignore[no-any-return]


def test_a_keyword_is_found_in_its_own_sub_instruction() -> None:
    found = tokens_of(("turn the red ball blue", "ball"), ("make the white ball pink", "ball"))
    first, second = found.keywords
    assert pieces(found.ids, first) == pieces(found.ids, second) == ["ball</w>"]
    assert first[0] < second[0]
    assert [found.owner[first[0]], found.owner[second[0]]] == [0, 1]


def test_a_keyword_keeps_all_its_tokens_and_ignores_case_and_punctuation() -> None:
    found = tokens_of(("Paint the HOT air balloon, please", "hot air balloon"))
    assert "".join(pieces(found.ids, found.keywords[0])).replace("</w>", " ").split() == ["hot", "air", "balloon"]


def test_tokens_of_no_sub_instruction_belong_to_none() -> None:
    found = tokens_of(("make it night", None), ("add a sun", "sun"))
    comma = pieces(found.ids, tuple(range(len(found.ids)))).index(",</w>")
    assert found.owner[0] == found.owner[comma] == found.owner[-1] == 2
    assert found.owner[1:4] == (0, 0, 0)


def test_text_past_the_token_limit_is_cut_and_its_keyword_has_no_tokens() -> None:
    found = tokens_of(("please " * 45 + "add a sun", "sun"))
    assert found.cut
    assert found.keywords == ((),)
    assert len(found.ids) == TOKENIZER.model_max_length
    assert not tokens_of(("add a sun", "sun")).cut


def test_function_words_are_no_candidates_for_the_most_concentrated_word() -> None:
    assert [word for word, _ in tokens_of(("make it look like winter", None)).words[0]] == ["winter"]
