"""From words to token positions: the composite instruction, each sub-instruction's span in it, each keyword's
columns."""

from __future__ import annotations

import re
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from foi_core import choices, words
from foi_core.spec import SubInstruction, word_span

# Words that tell nothing about a place: no candidates for the most concentrated word, unless there is no other.
_FUNCTION_WORDS = (
    words.DETERMINERS
    | words.PRONOUNS
    | words.PREPOSITIONS
    | words.ADVERBS
    | words.BE
    | words.MODALS
    | words.LEADS.keys()
)


@dataclass(frozen=True)
class TokenisedInstruction:
    """The composite instruction T as the text encoder sees it.

    `ids` has the model's full length. `owner[j]` is the sub-instruction that token j belongs to, or k (their number)
    for tokens of none: start, end, padding and separators. `keywords[i]` are e_i's token positions, empty if cut off
    or not found, and `words[i]` the candidate words of T_i with theirs. `cut` says whether text was lost at the token
    limit.
    """

    ids: tuple[int, ...]
    owner: tuple[int, ...]
    keywords: tuple[tuple[int, ...], ...]
    words: tuple[tuple[tuple[str, tuple[int, ...]], ...], ...]
    cut: bool


def tokenise(
    tokenizer: PreTrainedTokenizerBase, parts: tuple[SubInstruction, ...], keywords: tuple[str | None, ...]
) -> TokenisedInstruction:
    """Joins the sub-instructions into T and finds every span and keyword in it."""
    text = choices.SEPARATOR.join(part.text for part in parts)
    limit = tokenizer.model_max_length
    encoded = tokenizer(text, padding="max_length", max_length=limit, truncation=True, return_offsets_mapping=True)
    offsets: list[tuple[int, int]] = encoded["offset_mapping"]
    owner, found, candidates, start = [len(parts)] * limit, [], [], 0
    for i, (part, keyword) in enumerate(zip(parts, keywords, strict=True)):
        end = start + len(part.text)
        for j in _overlapping(offsets, start, end):
            owner[j] = i
        span = word_span(part.text, keyword) if keyword is not None else None
        found.append(_overlapping(offsets, start + span[0], start + span[1]) if span else ())
        candidates.append(tuple(_candidates(part.text, start, offsets)))
        start = end + len(choices.SEPARATOR)
    return TokenisedInstruction(
        ids=tuple(encoded["input_ids"]),
        owner=tuple(owner),
        keywords=tuple(found),
        words=tuple(candidates),
        cut=len(tokenizer(text, verbose=False)["input_ids"]) > limit,
    )


def _candidates(text: str, start: int, offsets: list[tuple[int, int]]) -> list[tuple[str, tuple[int, ...]]]:
    found = re.finditer(r"[^\W\d_]+", text)
    spans = [(w.group(), _overlapping(offsets, start + w.start(), start + w.end())) for w in found]
    read = [(word, tokens) for word, tokens in spans if tokens]
    return [(word, tokens) for word, tokens in read if word.lower() not in _FUNCTION_WORDS] or read


def _overlapping(offsets: list[tuple[int, int]], start: int, end: int) -> tuple[int, ...]:
    """Tokens that cover any character of [start, end); special tokens cover none."""
    return tuple(j for j, (a, b) in enumerate(offsets) if a < end and b > start and b > a)
