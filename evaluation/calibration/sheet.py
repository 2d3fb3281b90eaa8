"""The sheet to look at. Above, the masks: a row for each picture, a column for each setting. Below, the edits: of each
picture a row for each s_I, a column for each s_T."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from PIL import Image

from demo.sheet import PAPER, Tile, sheet, stacked, tinted
from evaluation.calibration.settings import Scales, Setting
from evaluation.pictures.data import Item
from evaluation.pictures.pictures import open_mask, open_target
from evaluation.pictures.store import Row, Store
from foi_core.images import union

SIDE = 224  # pixels of a tile
LETTERS = 34  # of a tile's second line
SHOWN = 8  # pictures
NOTES = (("clip_d", "CLIP-D {:.3f}"), ("clip_i", "CLIP-I {:.3f}"), ("mae_target", "to target {:.1f}"))
NOTHING = Image.new("RGB", (1, 1), PAPER)
BLANK = Tile(NOTHING, "")


def draw(
    items: Sequence[Item],
    store: Store,
    masks: Sequence[Setting],
    edits: Sequence[Setting],
    best: Sequence[Setting],
    about_edits: str,
) -> Image.Image:
    """Of the first SHOWN pictures. `best` are the settings that figures have chosen; they are marked."""
    chosen, shown = set(best), list(items)[:SHOWN]
    grid = _grid(edits)
    rows_of_masks, rows_of_edits = [], []
    for item in shown:
        picture, right = _source(item), _judged(item, shown, _truth)
        rows_of_masks.append([picture, *right, *(_tile(item, store, one, one in chosen, _mask_tile) for one in masks)])
        left = [picture, *_judged(item, shown, _target)]
        for line in grid:
            tiles = [_tile(item, store, one, one in chosen, _edit_tile) if one else BLANK for one in line]
            rows_of_edits.append([*left, *tiles])
            left = [BLANK] * len(left)
    heading = "Masks: what each setting would let change"
    return stacked([sheet(heading, rows_of_masks, SIDE), sheet(about_edits, rows_of_edits, SIDE)])


def _grid(edits: Sequence[Setting]) -> list[list[Setting | None]]:
    """A line for each s_I, a column for each s_T, both rising; None where the two were not tried together."""
    by_scales = {edit.scales: edit for edit in edits if edit.scales}
    columns = sorted({scales.guidance_scale for scales in by_scales})
    lines = sorted({scales.image_guidance_scale for scales in by_scales})
    return [[by_scales.get(Scales(s_T, s_I)) for s_T in columns] for s_I in lines]


Truth = Callable[[Item], Tile | None]


def _source(item: Item) -> Tile:
    asked = "; ".join(part.text for part in item.parts)
    return Tile(_small(item.picture()), item.id[:24], textwrap.shorten(asked, LETTERS, placeholder=" ..."))


def _judged(item: Item, shown: Sequence[Item], truth: Truth) -> list[Tile]:
    """A column for what the user says is right, if any picture has it."""
    if not any(truth(other) for other in shown):
        return []
    return [truth(item) or Tile(NOTHING, "", "not given")]


def _truth(item: Item) -> Tile | None:
    if item.mask is None:
        return None
    picture = item.picture()
    mask = open_mask(item.mask, picture.size)
    return Tile(tinted(_small(picture), [_small(mask)]), "true mask", _share([mask]))


def _target(item: Item) -> Tile | None:
    return None if item.target is None else Tile(_small(open_target(item.target, item.picture().size)), "target")


def _tile(item: Item, store: Store, setting: Setting, best: bool, tile: Callable[[Item, Store, Row], Tile]) -> Tile:
    row = store.find(item, setting.name)
    title = f"{setting.label}{' (best)' if best else ''}"
    if row is None:
        return Tile(NOTHING, title, "failed")
    made = tile(item, store, row)
    return Tile(made.image, title, made.note)


def _mask_tile(item: Item, store: Store, row: Row) -> Tile:
    _, masks = store.pictures(row)
    figures = [f"IoU {row.measures['mask_iou']:.2f}"] if "mask_iou" in row.measures else []
    return Tile(
        tinted(_small(item.picture()), [_small(mask) for mask in masks]), "", ", ".join([*figures, _share(masks)])
    )


def _edit_tile(item: Item, store: Store, row: Row) -> Tile:  # noqa: ARG001
    image, _ = store.pictures(row)
    assert image is not None
    figures = [text.format(row.measures[name]) for name, text in NOTES if name in row.measures]
    return Tile(_small(image), "", ", ".join(figures))


def _small(image: Image.Image) -> Image.Image:
    """At most as large as a tile."""
    kind = Image.Resampling.NEAREST if image.mode == "L" else Image.Resampling.LANCZOS
    factor = min(1.0, SIDE / max(image.size))
    return image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))), kind)


def _share(masks: Sequence[Image.Image]) -> str:
    """How much of the picture may change."""
    everywhere = union([_small(mask) for mask in masks])
    return f"{100 * everywhere.histogram()[255] / (everywhere.width * everywhere.height):.0f}% of the picture"
