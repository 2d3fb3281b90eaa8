"""The keyword rule. `keyword_table.tsv` holds what a careful human editor marks, also where the rule is wrong.

How the table was marked: the thing added; else the thing acted on; "-" where the request has no place of its own (a
style, a picture as a whole, a pronoun). A named season, time of day or weather is marked itself; adjectives ("foggy")
are not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from demo.edits import random_edits
from demo.scenes import random_scene
from foi_core.keywords import find_keyword

ROWS = [line.split("\t") for line in (Path(__file__).parent / "keyword_table.tsv").read_text("utf-8").splitlines()]
CATEGORIES = {
    "recolour",
    "replace",
    "add",
    "remove",
    "style",
    "weather",
    "season",
    "material",
    "people",
    "clothes",
    "food",
    "animals",
}

DEMO_PHRASES = {
    "make the ball red": "ball",
    "make the red ball blue": "ball",
    "turn the house orange": "house",
    "change the heart to white": "heart",
    "paint the box pink": "box",
    "color the tree green": "tree",
    "replace the star with a box": "star",
    "turn the ball into a house": "ball",
    "change the white box into a heart": "box",
    "swap the tree for a star": "tree",
    "remove the ball": "ball",
    "delete the box": "box",
    "erase the purple star": "star",
    "take away the house": "house",
    "give the ball a hat": "hat",
    "put the ball under a hat": "hat",
    "add a sun": "sun",
    "add a sun to the sky": "sun",
    "put a sun in the sky": "sun",
    "make the sky pink": "sky",
    "turn the sky grey": "sky",
    "change the sky to orange": "sky",
    "turn the grass into sand": "grass",
    "turn the snow into water": "snow",
    "replace the water with snow": "water",
    "change the sand to grass": "sand",
    "make it night": "night",
    "turn day into night": "night",
    "change it to night": "night",
    "keep the tree": "tree",
    "leave the house as it is": "house",
}


def test_most_keywords_of_the_table_are_right(capsys: pytest.CaptureFixture[str]) -> None:
    right = sum((find_keyword(text) or "-") == expected for _, text, expected in ROWS)
    with capsys.disabled():
        print(f"\nkeywords: {right} of {len(ROWS)} right ({right / len(ROWS):.1%})")
    assert right / len(ROWS) >= 0.95


def test_the_table_is_well_formed_and_covers_every_category() -> None:
    assert {category for category, _, _ in ROWS} == CATEGORIES
    assert len({text for _, text, _ in ROWS}) == len(ROWS) >= 110
    assert all(expected == "-" or expected in text for _, text, expected in ROWS)


@pytest.mark.parametrize(("text", "keyword"), DEMO_PHRASES.items())
def test_phrases_of_the_demo_world_are_all_right(text: str, keyword: str) -> None:
    assert find_keyword(text) == keyword


def test_every_edit_that_the_demo_world_draws_gets_its_own_keyword_back() -> None:
    rng = np.random.default_rng(0)
    edits = [edit for _ in range(100) for edit in random_edits(rng, random_scene(rng), 3)]
    assert {e.instruction: find_keyword(e.instruction) for e in edits} == {e.instruction: e.keyword for e in edits}


@pytest.mark.parametrize(
    "text", ["make him older", "turn it red", "make this blue", "change everything", "remove them"]
)
def test_a_pronoun_is_never_a_keyword(text: str) -> None:
    assert find_keyword(text) is None


@pytest.mark.parametrize("opening", ["", "please ", "Could you please ", "can you ", "I'd like you to ", "now "])
@pytest.mark.parametrize("end", ["", ".", "!", "?", ", please", " please"])
def test_politeness_and_punctuation_do_not_matter(opening: str, end: str) -> None:
    assert find_keyword(f"{opening}make the big red ball blue{end}") == "ball"


def test_the_keyword_is_written_as_in_the_text() -> None:
    assert find_keyword("MAKE THE HAT BLACK") == "HAT"
    assert find_keyword("Change the MAN’s colour to grey") == "MAN"


@pytest.mark.parametrize("text", ["", "   ", "\n", "!!!", "...", "😀", "the", "make", "add a", "make the woman's", "3"])
def test_a_text_that_names_nothing_has_no_keyword(text: str) -> None:
    assert find_keyword(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *(row[1] for row in ROWS),
        "的猫变成狗",
        "сделай шляпу чёрной",
        "hazlo rojo",
        "add a 🎩 to the cat",
        "'s",
        "a, " * 5000,
        "!" * 20000,
    ],
)
def test_the_keyword_is_a_part_of_the_text_or_none(text: str) -> None:
    keyword = find_keyword(text)
    assert keyword is None or (keyword and keyword in text)
