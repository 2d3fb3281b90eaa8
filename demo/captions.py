"""Captions of the procedural world: what a picture shows, in words whose order, wording and choice vary.

A colour and a place always stand before their noun: CLIP's text encoder is causal, so only then does the noun know
them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo import edits
from demo.scenes import GROUND, SKY, Scene

MENTION_THING, MENTION_COLOUR, MENTION_SKY, MENTION_GROUND = 0.9, 0.7, 0.6, 0.6
MENTION_PLACES = 0.5  # share of captions that say where each thing is
_PLACES = ("on the left", "in the middle", "on the right")
_FRAMES = ("{}", "{}", "{}", "a picture of {}", "there is {}")


@dataclass(frozen=True)
class Noun:
    """A noun of a caption: its characters, and the labels (`scenes.labels`) of what it names."""

    start: int
    end: int
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Caption:
    text: str
    nouns: tuple[Noun, ...]


_Phrase = tuple[str, str, tuple[int, ...]]  # its words, its noun, what the noun names


def random_caption(rng: np.random.Generator, scene: Scene, mention_places: float = MENTION_PLACES) -> Caption:
    """One of the many captions of `scene`; at least one thing of it is named."""
    placed = rng.random() < mention_places
    chosen = [i for i in rng.permutation(len(scene.things)) if rng.random() < MENTION_THING]
    things = [_thing(rng, scene, int(i), placed) for i in chosen or [rng.integers(len(scene.things))]]
    sky: list[_Phrase] = [(f"{_article(scene.sky)} {scene.sky} sky", "sky", (SKY,))]
    ground: list[_Phrase] = [(scene.ground, scene.ground, (GROUND,))]
    sky, ground = sky * (rng.random() < MENTION_SKY), ground * (rng.random() < MENTION_GROUND)
    if rng.random() < 0.5:
        bag = [*things, *sky, *ground]
        comma = str(rng.choice((", ", " and ")))
        pieces = _joined([bag[int(i)] for i in rng.permutation(len(bag))], comma, comma)
    else:
        pieces = _joined(things, ", ", " and ")
        if ground:
            pieces += [" on ", *ground]
        if sky:
            pieces = ["under ", *sky, ", ", *pieces] if rng.random() < 0.3 else [*pieces, " under ", *sky]
    before, after = ("{}" if placed else str(rng.choice(_FRAMES))).split("{}")
    return _written([before, *pieces, after])


def vocabulary() -> list[str]:
    """Every word that a caption or an instruction of this world can hold."""
    return sorted(
        {*edits.vocabulary(), "a", "and", "on", "under", "there", "is", "picture", "of", *" ".join(_PLACES).split()}
    )


def _thing(rng: np.random.Generator, scene: Scene, index: int, placed: bool) -> _Phrase:
    thing = scene.things[index]
    coloured = rng.random() < MENTION_COLOUR
    words = f"{_article(thing.colour)} {thing.colour} {thing.kind}" if coloured else f"a {thing.kind}"
    if placed:
        words = f"{_place(scene, index)} {words}"
    same = tuple(i for i, other in enumerate(scene.things) if other.kind == thing.kind)
    return words, thing.kind, (index,) if placed or coloured else same


def _place(scene: Scene, index: int) -> str:
    """Left or right of two things, or in the middle of three."""
    rank = sum(other.x < scene.things[index].x for other in scene.things)
    return _PLACES[round(rank * (len(_PLACES) - 1) / max(len(scene.things) - 1, 1))]


def _joined(phrases: list[_Phrase], comma: str, last: str) -> list[str | _Phrase]:
    """The phrases with `comma` between them, and `last` before the last one."""
    pieces: list[str | _Phrase] = []
    for i, phrase in enumerate(phrases):
        if i:
            pieces.append(last if i == len(phrases) - 1 else comma)
        pieces.append(phrase)
    return pieces


def _written(pieces: list[str | _Phrase]) -> Caption:
    text, nouns = "", []
    for piece in pieces:
        if isinstance(piece, str):
            text += piece
            continue
        words, noun, labels = piece
        start = len(text) + words.rindex(noun)
        nouns.append(Noun(start, start + len(noun), labels))
        text += words
    return Caption(text, tuple(nouns))


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
