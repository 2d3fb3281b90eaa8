"""Edits of the procedural world: an instruction, its keyword, and the scene that it asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from demo.scenes import (
    COLOURS,
    EDIT_KINDS,
    GROUNDS,
    KINDS,
    SKIES,
    WHOLE,
    Scene,
    Thing,
    World,
    changed_region,
    render,
)

# How often a training picture shows each kind: what is hard to learn comes more often.
_SHARES = dict(zip(EDIT_KINDS, (0.30, 0.16, 0.14, 0.06, 0.04, 0.12, 0.12, 0.03, 0.03), strict=True))

_PHRASES: dict[str, tuple[str, ...]] = {
    "recolour": (
        "make the {a} {c}",
        "turn the {a} {c}",
        "change the {a} to {c}",
        "paint the {a} {c}",
        "color the {a} {c}",
    ),
    "replace": (
        "replace the {a} with a {b}",
        "turn the {a} into a {b}",
        "change the {a} into a {b}",
        "swap the {a} for a {b}",
    ),
    "remove": ("remove the {a}", "delete the {a}", "erase the {a}", "take away the {a}"),
    "hat": ("give the {a} a hat", "put the {a} under a hat"),
    "sun": ("add a sun", "add a sun to the sky", "put a sun in the sky"),
    "sky": ("make the sky {c}", "turn the sky {c}", "change the sky to {c}"),
    "ground": ("turn the {a} into {b}", "replace the {a} with {b}", "change the {a} into {b}", "change the {a} to {b}"),
    "night": ("make it night", "turn day into night", "change it to night"),
    "nothing": ("keep the {a}", "leave the {a} as it is"),
}
_JOINS = (" and ", ", ", ", then ", " and then ", ", and ")
_ASIDES = ("please", "can you", "could you", "then", "now")


@dataclass(frozen=True)
class Edit:
    """One sub-instruction: what it says, the word that says where, and the scene that it leads to."""

    kind: str
    instruction: str
    keyword: str
    subject: str  # what it acts on: two edits of one picture must not share it
    apply: Callable[[Scene], Scene]
    without: Callable[[Scene], Scene] | None = None  # the scene without the object, if its whole shape counts

    def region(self, scene: Scene) -> np.ndarray:
        """True region: what the edit changes, and the whole of an object that it replaces, (128, 128) bool."""
        before = render(scene)
        region = changed_region(before, render(self.apply(scene)))
        return region | changed_region(before, render(self.without(scene))) if self.without else region


def random_edit(rng: np.random.Generator, scene: Scene, kind: str | None = None, world: World = WHOLE) -> Edit:
    """A random edit that makes sense in `scene`; `kind` is one of the world's, drawn if None."""
    if kind is None:
        shares = np.array([_SHARES[k] for k in world.edit_kinds])
        kind = str(rng.choice(world.edit_kinds, p=shares / shares.sum()))
    phrase = str(rng.choice(_PHRASES[kind]))
    if kind == "sky":
        colour = _other(rng, world.skies, scene.sky)
        return Edit(kind, phrase.format(c=colour), "sky", "sky", lambda s: replace(s, sky=colour))
    if kind == "ground":
        ground = _other(rng, world.grounds, scene.ground)
        text = phrase.format(a=scene.ground, b=ground)
        return Edit(kind, text, scene.ground, "ground", lambda s: replace(s, ground=ground))
    if kind == "sun":
        return Edit(kind, phrase, "sun", "sun", lambda s: replace(s, sun=True))
    if kind == "night":
        return Edit(kind, phrase, "night", "night", lambda s: replace(s, night=True))
    return _object_edit(rng, scene, kind, phrase, world)


def random_edits(rng: np.random.Generator, scene: Scene, count: int, world: World = WHOLE) -> list[Edit]:
    """`count` edits of one picture that do not touch each other's subject (fewer if the scene is too small)."""
    edits: list[Edit] = []
    taken = {"night"}
    for _ in range(20 * count):
        edit = random_edit(rng, scene, world=world)
        if edit.kind != "nothing" and edit.subject not in taken:
            edits.append(edit)
            taken.add(edit.subject)
        if len(edits) == count:
            break
    return edits


def join(rng: np.random.Generator, edits: list[Edit]) -> str:
    """One composite text of several sub-instructions."""
    text = edits[0].instruction
    for edit in edits[1:]:
        text += str(rng.choice(_JOINS)) + edit.instruction
    return text


def vocabulary() -> list[str]:
    """Every word that an instruction of this world can hold, and a few that people add."""
    texts = [p for phrases in _PHRASES.values() for p in phrases] + list(_JOINS) + list(_ASIDES)
    words = {w.strip(",") for t in texts for w in t.split() if "{" not in w}
    words |= {*COLOURS, *SKIES, *GROUNDS, *KINDS, "colour", "an", "of", "picture", "night", "day"}
    return sorted(w for w in words if w)


def _object_edit(rng: np.random.Generator, scene: Scene, kind: str, phrase: str, world: World) -> Edit:
    index = int(rng.integers(len(scene.things)))
    thing = scene.things[index]
    twins = sum(t.kind == thing.kind for t in scene.things) > 1
    name = f"{thing.colour} {thing.kind}" if twins or rng.random() < 0.15 else thing.kind
    subject = f"thing {index}"

    def change(**what: object) -> Callable[[Scene], Scene]:
        return lambda s: s.with_thing(_find(s, thing), replace(thing, **what))  # type: ignore[arg-type]

    def erase(scene: Scene) -> Scene:
        return scene.without_thing(_find(scene, thing))

    if kind == "recolour":
        colour = _other(rng, world.colours, thing.colour)
        return Edit(kind, phrase.format(a=name, c=colour), thing.kind, subject, change(colour=colour))
    if kind == "replace":
        other = _other(rng, world.kinds, thing.kind)
        return Edit(kind, phrase.format(a=name, b=other), thing.kind, subject, change(kind=other), erase)
    if kind == "hat":
        return Edit(kind, phrase.format(a=name), "hat", subject, change(hat=True))
    if kind == "remove":
        return Edit(kind, phrase.format(a=name), thing.kind, subject, erase)
    return Edit(kind, phrase.format(a=name), thing.kind, subject, lambda s: s)


def _find(scene: Scene, thing: Thing) -> int:
    """An object keeps its place whatever happens to the others."""
    return next(i for i, t in enumerate(scene.things) if (t.x, t.y) == (thing.x, thing.y))


def _other(rng: np.random.Generator, choices: tuple[str, ...], now: str) -> str:
    return str(rng.choice([c for c in choices if c != now]))
