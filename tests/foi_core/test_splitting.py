"""Splitting. `split_table.tsv` holds what a careful human editor marks, also where the rule is wrong."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from demo.edits import join, random_edits
from demo.scenes import random_scene
from foi_core.keywords import find_keyword
from foi_core.splitting import split_instruction
from foi_core.words import is_adjective


def _rows() -> list[tuple[str, tuple[str, ...]]]:
    table = (Path(__file__).parent / "split_table.tsv").read_text("utf-8").splitlines()
    cells = [line.replace("\\n", "\n").split("\t") for line in table]
    return [(text, tuple(pieces.split(" | "))) for text, pieces in cells]


ROWS = _rows()
JOINING = {
    "and",
    "then",
    "also",
    "but",
    "plus",
    "after",
    "that",
    "finally",
    "next",
    "first",
    "lastly",
    "step",
    "if",
    "possible",
}
ODD = [
    "!!!",
    "😀 and 😀",
    "的猫变成狗，然后加雪",
    "and",
    "then, and",
    "1.",
    "- ",
    "add",
    ".",
    '"',
    "a, " * 3000,
    "and " * 3000,
    "!" * 9000,
]


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"[^\W\d_]{2,}", text.lower()) if word not in JOINING]


def test_most_splits_of_the_table_are_right(capsys: pytest.CaptureFixture[str]) -> None:
    right = sum(split_instruction(text) == pieces for text, pieces in ROWS)
    with capsys.disabled():
        print(f"\nsplits: {right} of {len(ROWS)} right ({right / len(ROWS):.1%})")
    assert right / len(ROWS) >= 0.95


def test_the_table_has_enough_texts_that_must_stay_whole() -> None:
    assert len(ROWS) >= 60
    assert sum(len(pieces) == 1 for _, pieces in ROWS) >= 15


@pytest.mark.parametrize(
    "text",
    [
        "turn the dog into a black and white cat",
        "add salt and pepper",
        "make the sky pink and purple",
        "replace the cup with a bowl of apples, pears and grapes",
        "remove the man and the woman",
        "make it look old and dirty",
        'add a sign that says "stop and turn around"',
        "in the background, add a tree",
    ],
)
def test_things_and_colours_that_are_joined_stay_in_one_piece(text: str) -> None:
    assert split_instruction(text) == (text,)


@pytest.mark.parametrize(
    "joint", [" and ", ", ", ", then ", " and then ", ", and ", "; ", ". ", "\n", " but ", ". Finally, "]
)
def test_two_requests_are_cut_at_any_joint(joint: str) -> None:
    assert split_instruction(f"make the hat black{joint}add snow.") == ("make the hat black", "add snow")


def test_a_verb_that_was_left_out_is_given_back() -> None:
    assert split_instruction("make the hat black and the coat red") == ("make the hat black", "make the coat red")
    assert split_instruction("Turn the grass into sand, the sky into fire") == (
        "Turn the grass into sand",
        "Turn the sky into fire",
    )


def test_every_composite_of_the_demo_world_splits_into_its_edits() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        edits = random_edits(rng, random_scene(rng), 3)
        assert split_instruction(join(rng, edits)) == tuple(edit.instruction for edit in edits)


@pytest.mark.parametrize("text", ["", "   ", "\n\t "])
def test_a_blank_text_has_no_pieces(text: str) -> None:
    assert split_instruction(text) == ()


@pytest.mark.parametrize("text", [*(row[0] for row in ROWS), *ODD])
def test_pieces_are_not_blank_and_splitting_one_again_gives_it_back(text: str) -> None:
    pieces = split_instruction(text)
    assert pieces
    assert [split_instruction(piece) for piece in pieces] == [(piece,) for piece in pieces]


@pytest.mark.parametrize("text", [row[0] for row in ROWS])
def test_pieces_keep_every_content_word_in_order(text: str) -> None:
    kept = iter(_words(" ".join(split_instruction(text))))
    assert all(word in kept for word in _words(text))


HOSTILE = {
    "joints without a verb": ("x", ", the a b"),
    "a result that is left out": ("make a", ", the a b, the a red"),
    "joining words": ("", "x and-"),
    "polite openings": ("", "could you please, "),
    "quotation marks": ("", "“, "),
    "lists": ("", "\n- a"),
    "one phrase": ("make ", "red "),
    "measures": ("add ", "a pair of "),
    "adverbs": ("", "really "),
}


@pytest.mark.parametrize("read", [split_instruction, find_keyword])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_text_twice_as_long_is_at_most_some_twice_the_work(kind: str, read: Callable[[str], object]) -> None:
    begin, unit = HOSTILE[kind]
    once, twice = (_calls(read, (begin + unit * 2000)[:length]) for length in (4000, 8000))
    assert twice < 2.2 * once + 100


def test_a_text_of_commas_alone_is_read_in_one_pass() -> None:
    """The run is looked at from its first comma only. Where each comma began a look of its own, this took minutes."""
    assert split_instruction("," * 200_000 + "x") == ("," * 200_000 + "x",)


def _calls(read: Callable[[str], object], text: str) -> int:
    """How many functions are called, in Python and in C, to read the text: words are remembered from no text before."""
    counted = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    is_adjective.cache_clear()
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        read(text)
    finally:
        sys.setprofile(before)
    return counted
