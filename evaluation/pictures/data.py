"""The user's data: a folder of pictures and a JSON Lines file that says what to do with each.

One object a line: `image`, and `instruction` (one text) or `instructions` (a list of {text, keyword?, mask?}); optional
`id`, `seed`, `target`, `mask`, `caption`, `target_caption`. Paths are relative to the folder and stay inside it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from evaluation.pictures.fields import Fields
from evaluation.pictures.pictures import open_mask, open_picture, open_target
from evaluation.pictures.problems import BadLine, Problem, UsageError
from foi_core import EditSpec, InvalidParameter, SubInstruction
from foi_core.splitting import split_instruction

FIELDS = frozenset(
    {"image", "instruction", "instructions", "id", "seed", "target", "mask", "caption", "target_caption"}
)
PART_FIELDS = frozenset({"text", "keyword", "mask"})


@dataclass(frozen=True)
class Part:
    """One sub-instruction: its text, its keyword, and the file of the region that the user gives it."""

    text: str
    keyword: str | None
    mask: Path | None


@dataclass(frozen=True)
class Item:
    """One line: a picture, its instructions, and what to judge the result by.

    `mask` is the true region, white, and `target` the true result; both have the picture's size. `fingerprint` changes
    with the line and with every file that it names.
    """

    id: str
    place: str
    image: Path
    parts: tuple[Part, ...]
    seed: int | None
    target: Path | None
    mask: Path | None
    caption: str | None
    target_caption: str | None
    fingerprint: str

    def picture(self) -> Image.Image:
        return open_picture(self.image)

    def instructions(self) -> tuple[SubInstruction, ...]:
        """As the engine takes them, masks opened."""
        size = self.picture().size
        return tuple(
            SubInstruction(part.text, part.keyword, mask=None if part.mask is None else open_mask(part.mask, size))
            for part in self.parts
        )


def read_items(file: Path, folder: Path) -> tuple[list[Item], list[Problem]]:
    """Every line that can be used, in order, and what is wrong with the others, each by its file and line.

    All files that a line names are opened here, so that nothing is found out hours later. Raises UsageError if there
    is no such file.
    """
    try:
        lines = file.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise UsageError(
            f"{file} cannot be read ({error.strerror}): give the folder with --data, the file with --file"
        ) from error
    items: dict[str, Item] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{file.name}:{number}"
        try:
            item = _read_line(line, place, str(number), folder)
            if item.id in items:
                raise BadLine(f"id {item.id!r} is also that of {items[item.id].place}: give each line its own")
            items[item.id] = item
        except BadLine as bad:
            problems.append(Problem(place, str(bad)))
    return list(items.values()), problems


def _read_line(line: bytes, place: str, number: str, folder: Path) -> Item:
    fields = Fields(_parse(line), FIELDS, folder)
    image = fields.path("image", needed=True)
    assert image is not None
    item = Item(
        id=fields.name("id") or number,
        place=place,
        image=image,
        parts=_parts(fields, folder),
        seed=fields.seed("seed"),
        target=fields.path("target"),
        mask=fields.path("mask"),
        caption=fields.text("caption"),
        target_caption=fields.text("target_caption"),
        fingerprint="",
    )
    _check_files(item)
    return Item(**{**vars(item), "fingerprint": _fingerprint(item)})


def _parse(line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise BadLine(f"not UTF-8 (byte {error.start + 1}): save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise BadLine(f"not JSON ({error}): one object a line") from error
    if not isinstance(content, dict):
        raise BadLine("not an object: write {...}")
    return content


def _parts(fields: Fields, folder: Path) -> tuple[Part, ...]:
    text, several = fields.text("instruction"), fields.list("instructions")
    if (text is None) == (several is None):
        raise BadLine("give either instruction (one text) or instructions (a list)")
    if text is not None:
        return tuple(Part(piece, None, None) for piece in split_instruction(text))
    found = []
    for i, part in enumerate(several or ()):
        if not isinstance(part, dict):
            raise BadLine(f"instructions[{i}] is not an object: write {{...}}")
        inner = Fields(part, PART_FIELDS, folder, f"instructions[{i}].")
        piece = inner.text("text", needed=True)
        assert piece is not None
        found.append(Part(piece, inner.text("keyword"), inner.path("mask")))
    return tuple(found)


def _check_files(item: Item) -> None:
    """Opens everything once."""
    size = item.picture().size
    if item.target is not None:
        open_target(item.target, size)
    if item.mask is not None:
        open_mask(item.mask, size)
    try:
        EditSpec(item.instructions())
    except InvalidParameter as error:
        raise BadLine(str(error)) from error


def _fingerprint(item: Item) -> str:
    told = [item.seed, item.caption, item.target_caption, *((part.text, part.keyword) for part in item.parts)]
    digest = hashlib.sha256(json.dumps(told).encode())
    for file in (item.image, item.target, item.mask, *(part.mask for part in item.parts)):
        digest.update(b"-" if file is None else hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]
