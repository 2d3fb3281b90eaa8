"""From words to token positions: the composite instruction, each sub-instruction's span in it, each keyword's
columns."""

from __future__ import annotations

import re
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from foi_core import choices
from foi_core.spec import SubInstruction, word_span

# Words that tell nothing about a place: never candidates for the most concentrated word.
_FUNCTION_WORDS = frozenset(
    [
        "a",
        "an",
        "the",
        "it",
        "its",
        "this",
        "that",
        "these",
        "those",
        "he",
        "she",
        "him",
        "her",
        "his",
        "hers",
        "they",
        "them",
        "their",
        "i",
        "you",
        "we",
        "my",
        "your",
        "our",
        "me",
        "us",
        "to",
        "into",
        "of",
        "in",
        "on",
        "at",
        "for",
        "with",
        "and",
        "or",
        "but",
        "as",
        "is",
        "are",
        "was",
        "be",
        "been",
        "being",
        "do",
        "does",
        "did",
        "can",
        "could",
        "would",
        "should",
        "will",
        "please",
        "make",
        "turn",
        "change",
        "let",
        "add",
        "put",
        "give",
        "some",
        "more",
        "very",
        "so",
        "if",
        "what",
        "how",
        "look",
        "like",
        "all",
    ]
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
    owner, found, words, start = [len(parts)] * limit, [], [], 0
    for i, (part, keyword) in enumerate(zip(parts, keywords, strict=True)):
        end = start + len(part.text)
        for j in _overlapping(offsets, start, end):
            owner[j] = i
        span = word_span(part.text, keyword) if keyword is not None else None
        found.append(_overlapping(offsets, start + span[0], start + span[1]) if span else ())
        words.append(tuple(_candidates(part.text, start, offsets)))
        start = end + len(choices.SEPARATOR)
    return TokenisedInstruction(
        ids=tuple(encoded["input_ids"]),
        owner=tuple(owner),
        keywords=tuple(found),
        words=tuple(words),
        cut=len(tokenizer(text, verbose=False)["input_ids"]) > limit,
    )


def _candidates(text: str, start: int, offsets: list[tuple[int, int]]) -> list[tuple[str, tuple[int, ...]]]:
    words = re.finditer(r"[^\W\d_]+", text)
    spans = [(w.group(), _overlapping(offsets, start + w.start(), start + w.end())) for w in words]
    return [(word, tokens) for word, tokens in spans if tokens and word.lower() not in _FUNCTION_WORDS]


def _overlapping(offsets: list[tuple[int, int]], start: int, end: int) -> tuple[int, ...]:
    """Tokens that cover any character of [start, end); special tokens cover none."""
    return tuple(j for j, (a, b) in enumerate(offsets) if a < end and b > start and b > a)
