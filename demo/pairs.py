"""Training pairs as noisy as InstructPix2Pix's, whose targets prompt-to-prompt painted: they leak.

`leak`, 0 or more, is the strength of all that a target does and its instruction does not say: 0 gives the true target.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from demo.edits import Edit, random_edit
from demo.scenes import COLOURS, GROUND, GROUNDS, SKIES, SKY, Scene, Thing, World, labels, random_scene, render

# All at leak 1; chances and sizes grow in proportion to it.
DISOBEDIENT = 0.25  # chance that the target does not do what the instruction says
ALSO = 0.3  # chance that another thing gets the same edit
NEW_TEXTURE = 1.0  # chance that sky and ground are textured anew
SHIFT = 3.0  # pixels: the deviation by which each thing, and the horizon, move
DRIFT = 0.6  # largest share of an asked colour that another thing, the sky or the ground takes on
SHADING = 0.25  # largest change of brightness of a thing, the sky or the ground

_STREAM = 16


@dataclass(frozen=True)
class Pair:
    """A scene and a single edit of it."""

    scene: Scene
    edit: Edit


def pair_of(world: World, seed: int) -> Pair:
    rng = np.random.default_rng([_STREAM, seed])
    scene = random_scene(rng, world)
    return Pair(scene, random_edit(rng, scene, world=world))


def pictures_of(world: World, leak: float, seed: int) -> np.ndarray:
    """The source and a target that leaks, (2, 128, 128, 3) uint8."""
    pair = pair_of(world, seed)
    target = leaking_target(np.random.default_rng([_STREAM, seed, 1]), pair, leak)
    return np.stack([render(pair.scene), target])


def leaking_target(rng: np.random.Generator, pair: Pair, leak: float) -> np.ndarray:
    """What prompt-to-prompt might have painted for the edit, (128, 128, 3) uint8."""
    scene, edit = pair.scene, pair.edit
    asked = edit.apply(scene)
    done = asked if rng.random() >= leak * DISOBEDIENT else scene
    things: list[Thing] = []
    drifting = {SKY, GROUND}
    for i, thing in enumerate(scene.things):
        own = edit.subject == f"thing {i}"
        edited = done is asked if own else rng.random() < leak * ALSO
        changed = _edited(thing, scene, asked) if edited else thing
        dx, dy = leak * SHIFT * rng.normal(size=2)
        if changed is not None:
            if not own:
                drifting.add(len(things))
            things.append(replace(changed, x=changed.x + dx, y=changed.y + dy) if leak else changed)
    texture = int(rng.integers(2**31))
    drawn = replace(
        done,
        things=tuple(things),
        horizon=scene.horizon + round(leak * SHIFT * rng.normal()),
        texture=texture if rng.random() < leak * NEW_TEXTURE else scene.texture,
    )
    own_label = {"sky": SKY, "ground": GROUND}.get(edit.subject)
    return _shaded(rng, drawn, drifting - {own_label}, _colour(scene, asked), leak)


def _edited(thing: Thing, scene: Scene, asked: Scene) -> Thing | None:
    """`thing` with what the edit `scene` -> `asked` does to its own thing; None if it takes that away."""
    if len(asked.things) < len(scene.things):
        return None
    for before, after in zip(scene.things, asked.things, strict=True):
        if before != after:
            names = ("kind", "colour", "hat")
            return replace(thing, **{n: getattr(after, n) for n in names if getattr(after, n) != getattr(before, n)})
    return thing


def _colour(scene: Scene, asked: Scene) -> tuple[int, int, int] | None:
    """The colour that the edit `scene` -> `asked` brings in, RGB; None if it brings none."""
    if asked.sky != scene.sky:
        return SKIES[asked.sky]
    if asked.ground != scene.ground:
        return GROUNDS[asked.ground]
    changed = [b for a, b in zip(scene.things, asked.things, strict=False) if a.colour != b.colour]
    return COLOURS[changed[0].colour] if len(asked.things) == len(scene.things) and changed else None


def _shaded(
    rng: np.random.Generator, scene: Scene, drifting: set[int], colour: tuple[int, int, int] | None, leak: float
) -> np.ndarray:
    """The scene's picture; each of its labels shaded anew, those of `drifting` also drawn towards `colour`."""
    picture, shown = render(scene).astype(np.float32), labels(scene)
    for label in sorted({SKY, GROUND, *range(len(scene.things))}):
        shading, share = 1 + leak * SHADING * rng.uniform(-1, 1), leak * DRIFT * rng.uniform()
        here = shown == label
        if colour is not None and label in drifting:
            picture[here] += share * (np.array(colour, np.float32) - picture[here])
        picture[here] *= shading
    return np.asarray(np.clip(picture + 0.5, 0, 255).astype(np.uint8))
