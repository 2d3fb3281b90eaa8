"""The procedural world: a scene is a few words, and a picture drawn from them.

A `Scene` is frozen and says everything about its picture, so that an edit is a new `Scene` and the true
target is its picture: same textures, same places, only what the edit names is different.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw

SIZE = 128
SUPERSAMPLE = 4

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "orange": (245, 130, 32),
    "yellow": (250, 215, 50),
    "green": (46, 160, 67),
    "blue": (45, 95, 215),
    "purple": (140, 60, 190),
    "pink": (245, 130, 185),
    "white": (240, 240, 240),
}
SKIES: dict[str, tuple[int, int, int]] = {
    "blue": (110, 175, 240),
    "orange": (245, 165, 85),
    "pink": (240, 165, 200),
    "grey": (150, 155, 162),
    "purple": (155, 125, 205),
}
GROUNDS: dict[str, tuple[int, int, int]] = {
    "grass": (98, 165, 75),
    "sand": (222, 196, 132),
    "snow": (232, 238, 246),
    "water": (50, 115, 165),
}
KINDS = ("ball", "box", "star", "heart", "tree", "house")
EDIT_KINDS = ("recolour", "replace", "remove", "hat", "sun", "sky", "ground", "night", "nothing")
SUN_CENTRE, SUN_RADIUS = (106, 20), 12
HAT_COLOUR = (35, 35, 42)


@dataclass(frozen=True)
class World:
    """What scenes are made of, and the kinds of edits that they get."""

    kinds: tuple[str, ...]
    colours: tuple[str, ...]
    skies: tuple[str, ...]
    grounds: tuple[str, ...]
    edit_kinds: tuple[str, ...]


WHOLE = World(KINDS, tuple(COLOURS), tuple(SKIES), tuple(GROUNDS), EDIT_KINDS)
SMALL = World(
    kinds=("ball", "star", "tree", "house"),
    colours=("red", "yellow", "blue", "purple", "white"),
    skies=("blue", "orange"),
    grounds=("grass", "sand"),
    edit_kinds=("recolour", "replace", "remove", "sky", "ground", "nothing"),
)
WORLDS = {"whole": WHOLE, "small": SMALL}


@dataclass(frozen=True)
class Thing:
    """An object of the scene. `x`, `y` centre and `radius` in pixels of the 128x128 picture."""

    kind: str
    colour: str
    x: float
    y: float
    radius: float
    hat: bool = False


@dataclass(frozen=True)
class Scene:
    """Everything that a picture shows. `horizon` in pixels from the top; `texture` seeds sky and ground noise."""

    sky: str
    ground: str
    horizon: int
    things: tuple[Thing, ...]
    texture: int
    sun: bool = False
    night: bool = False

    def with_thing(self, index: int, thing: Thing) -> Scene:
        return replace(self, things=(*self.things[:index], thing, *self.things[index + 1 :]))

    def without_thing(self, index: int) -> Scene:
        return replace(self, things=(*self.things[:index], *self.things[index + 1 :]))


def random_scene(rng: np.random.Generator, world: World = WHOLE) -> Scene:
    """Two or three objects side by side on the ground; one scene in six has two of the same kind."""
    count = int(rng.integers(2, 4))
    kinds = [str(k) for k in rng.permutation(world.kinds)[:count]]
    if rng.random() < 1 / 6:
        kinds[1] = kinds[0]
    colours = rng.permutation(world.colours)[:count]
    slot = SIZE / count
    largest = 26 if count == 2 else 20
    horizon = int(rng.integers(52, 72))
    things = []
    for i, (kind, colour) in enumerate(zip(kinds, colours, strict=True)):
        radius = float(rng.uniform(16, largest))
        room = max(slot / 2 - radius - 1, 0)
        x = slot * (i + 0.5) + float(rng.uniform(-room, room))
        bottom = float(rng.uniform(max(horizon + 18, 88), 122))
        things.append(Thing(kind, str(colour), x, bottom - radius, radius))
    order = [things[int(i)] for i in rng.permutation(count)]
    return Scene(
        sky=str(rng.choice(world.skies)),
        ground=str(rng.choice(world.grounds)),
        horizon=horizon,
        things=tuple(order),
        texture=int(rng.integers(2**31)),
    )


def render(scene: Scene) -> np.ndarray:
    """The scene's picture, (128, 128, 3) uint8."""
    picture = _background(scene.sky, scene.ground, scene.horizon, scene.texture)
    if scene.sun:
        disc = _coverage("ball", *SUN_CENTRE, SUN_RADIUS)
        picture = _over(picture, np.array([255, 232, 110], np.float32), disc)
    for thing in scene.things:
        for colour, coverage in _layers(thing):
            picture = _over(picture, colour, coverage)
    if scene.night:
        picture = picture * np.array([0.28, 0.32, 0.52], np.float32) + np.array([2, 4, 20], np.float32)
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


SKY, GROUND, SUN = -1, -2, -3


def labels(scene: Scene) -> np.ndarray:
    """What each pixel shows: SKY, GROUND, SUN or the index of a thing, hat and trunk included, (128, 128) int."""
    shown = np.where(np.arange(SIZE) < scene.horizon, SKY, GROUND)[:, None].repeat(SIZE, axis=1)
    if scene.sun:
        shown[_coverage("ball", *SUN_CENTRE, SUN_RADIUS) > 0.5] = SUN
    for i, thing in enumerate(scene.things):
        for _, coverage in _layers(thing):
            shown[coverage > 0.5] = i
    return shown


def changed_region(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """True region of an edit: the pixels that two pictures of one world draw differently, (128, 128) bool."""
    difference = np.abs(before.astype(np.int16) - after.astype(np.int16))
    return np.asarray(difference.max(axis=2) > 8)


@lru_cache(maxsize=64)
def _background(sky_name: str, ground_name: str, horizon: int, texture: int) -> np.ndarray:
    rows = np.arange(SIZE, dtype=np.float32)[:, None, None]
    haze = np.clip(rows / horizon, 0, 1) * 0.35
    sky = np.array(SKIES[sky_name], np.float32) * (1 - haze) + 255 * haze
    depth = np.clip((rows - horizon) / (SIZE - horizon), 0, 1)
    ground = np.array(GROUNDS[ground_name], np.float32) * (0.88 + 0.16 * depth)
    noise = np.random.default_rng(texture).normal(size=(32, 32)).astype(np.float32)
    speckle = np.asarray(Image.fromarray(noise).resize((SIZE, SIZE), Image.Resampling.BICUBIC))[:, :, None]
    edge = np.clip(rows - horizon + 0.5, 0, 1)
    picture: np.ndarray = (sky + 1.5 * speckle) * (1 - edge) + (ground + 5.0 * speckle) * edge
    picture.flags.writeable = False
    return picture


def _over(picture: np.ndarray, colour: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    blended: np.ndarray = picture * (1 - coverage[:, :, None]) + colour * coverage[:, :, None]
    return blended


def _layers(thing: Thing) -> list[tuple[np.ndarray, np.ndarray]]:
    """Colours (broadcastable to (128, 128, 3)) and coverages (128, 128) of an object's parts, back to front."""
    x, y, r = thing.x, thing.y, thing.radius
    rows, columns = np.ogrid[0:SIZE, 0:SIZE]
    light = np.clip(1.06 - 0.14 * ((columns - x) + (rows - y)) / r, 0.8, 1.2)[:, :, None].astype(np.float32)
    body = np.array(COLOURS[thing.colour], np.float32) * light
    layers = []
    if thing.kind == "tree":
        layers.append((np.array([110, 75, 45], np.float32), _coverage("trunk", x, y, r)))
    layers.append((np.minimum(body, 255), _coverage(thing.kind, x, y, r)))
    if thing.kind == "house":
        layers.append((np.minimum(body * 0.6, 255), _coverage("roof", x, y, r)))
        layers.append((np.array([70, 55, 45], np.float32), _coverage("door", x, y, r)))
    if thing.hat:
        layers.append((np.array(HAT_COLOUR, dtype=np.float32), _coverage("hat", x, y, r)))
    return layers


@lru_cache(maxsize=512)
def _coverage(shape: str, x: float, y: float, radius: float) -> np.ndarray:
    """Share of each pixel that a shape covers, (128, 128) in [0, 1]."""
    scale = SUPERSAMPLE
    canvas = Image.new("L", (SIZE * scale, SIZE * scale))
    draw = ImageDraw.Draw(canvas)
    if shape == "ball":
        draw.ellipse([(x - radius) * scale, (y - radius) * scale, (x + radius) * scale, (y + radius) * scale], fill=255)
    else:
        draw.polygon([((x + px * radius) * scale, (y + py * radius) * scale) for px, py in _OUTLINES[shape]], fill=255)
    coverage = np.asarray(canvas.reduce(scale), dtype=np.float32) / 255
    coverage.flags.writeable = False
    return coverage


def _star() -> list[tuple[float, float]]:
    reach = [1.08 if i % 2 == 0 else 0.48 for i in range(10)]
    return [(r * sin(pi * i / 5), -r * cos(pi * i / 5)) for i, r in enumerate(reach)]


def _heart() -> list[tuple[float, float]]:
    angles = [2 * pi * i / 60 for i in range(60)]
    return [(sin(a) ** 3, -(13 * cos(a) - 5 * cos(2 * a) - 2 * cos(3 * a) - cos(4 * a)) / 16.5 + 0.02) for a in angles]


# Outlines around (0, 0), in units of the radius; y points down and 1 is the bottom.
_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "box": [(-0.9, -0.8), (0.9, -0.8), (0.9, 1), (-0.9, 1)],
    "star": _star(),
    "heart": _heart(),
    "tree": [(0, -1.25), (0.85, 0.45), (-0.85, 0.45)],
    "trunk": [(-0.18, 0.4), (0.18, 0.4), (0.18, 1), (-0.18, 1)],
    "house": [(-0.85, -0.2), (0.85, -0.2), (0.85, 1), (-0.85, 1)],
    "roof": [(0, -1.15), (1.08, -0.2), (-1.08, -0.2)],
    "door": [(-0.22, 0.35), (0.22, 0.35), (0.22, 1), (-0.22, 1)],
    "hat": [
        (-0.32, -1.6),
        (0.32, -1.6),
        (0.36, -0.95),
        (0.75, -0.9),
        (0.75, -0.72),
        (-0.75, -0.72),
        (-0.75, -0.9),
        (-0.36, -0.95),
    ],
}
