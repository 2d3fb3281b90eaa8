"""A JSON Lines file of edits: one object a line, `image`, `instruction` or `instructions`, `id`, and the API's fields.

Paths are relative to the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foi_cli.errors import UsageError
from foi_cli.tasks import Task
from foi_client import Instructions, SubInstruction

PART_FIELDS = frozenset({"text", "keyword", "intensity", "mask"})
_NAME = re.compile(r"\w[\w.-]{0,99}")
_UNSAFE = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class BadLine:
    """What is wrong with a line; `number` counts from 1."""

    number: int
    reason: UsageError


def read_lines(file: Path, defaults: Mapping[str, Any]) -> tuple[list[Task], list[BadLine]]:
    """The edits of all good lines, in order; `defaults` are fields that a line may leave out. Raises UsageError."""
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"{file} cannot be read: {reason}") from error
    tasks, bad, names = list[Task](), list[BadLine](), set[str]()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            task = _task(line, number, file.parent, defaults)
            if task.name in names:
                raise UsageError(f"the id {task.name!r} is an earlier line's too; give each its own")
        except UsageError as error:
            bad.append(BadLine(number, error))
        else:
            names.add(task.name)
            tasks.append(task)
    return tasks, bad


def _task(line: str, number: int, folder: Path, defaults: Mapping[str, Any]) -> Task:
    try:
        given = json.loads(line)
    except ValueError as error:
        raise UsageError(f"not JSON: {error}") from None
    if not isinstance(given, dict):
        raise UsageError('not an object: {"image": "a.png", "instruction": "make the ball blue"}')
    given = {name: value for name, value in given.items() if value is not None}
    image = _image(given, folder)
    instruction = _instructions(given, folder)
    name = _name(given.pop("id", None), number, image)
    fields = {**defaults, **{field: _value(field, value) for field, value in given.items()}}
    return Task(name, image, instruction, fields, line=number)


def _image(given: dict[str, Any], folder: Path) -> Path | None:
    """None where a service is to fetch it."""
    if "image" not in given and "image_url" in given:
        return None
    return _file("image", given.pop("image", None), folder)


def _instructions(given: dict[str, Any], folder: Path) -> Instructions:
    one, several = given.pop("instruction", None), given.pop("instructions", None)
    if (one is None) == (several is None):
        raise UsageError("it needs an instruction, or instructions: what to change")
    if isinstance(one, str):
        return one
    listed = several if one is None else one
    if not isinstance(listed, list) or not listed:
        raise UsageError("instruction is a text or a list of texts, instructions a list of objects with a text")
    return list(_parts(listed, folder))


def _parts(listed: list[Any], folder: Path) -> Iterator[SubInstruction]:
    for i, entry in enumerate(listed):
        part = {"text": entry} if isinstance(entry, str) else entry
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            raise UsageError(f"instructions[{i}] is no text, nor an object with a text")
        for name in part.keys() - PART_FIELDS:
            raise UsageError(f"instructions[{i}].{name} is unknown; there are {', '.join(sorted(PART_FIELDS))}")
        mask = part.get("mask")
        yield SubInstruction(
            part["text"],
            part.get("keyword"),
            part.get("intensity"),
            None if mask is None else _file(f"instructions[{i}].mask", mask, folder),
        )


def _file(field: str, given: Any, folder: Path) -> Path:
    if not isinstance(given, str):
        raise UsageError(f"{field} is missing, or no path")
    path = folder / given
    if not path.is_file():
        raise UsageError(f"{field}: there is no file {path}")
    return path


def _name(given: Any, number: int, image: Path | None) -> str:
    if given is None:
        return f"{number}-{_UNSAFE.sub('_', image.stem)[:80]}" if image else str(number)
    name = str(given) if isinstance(given, str | int) else ""
    if not _NAME.fullmatch(name):
        raise UsageError(f"id: {given!r} cannot name a folder; take letters, digits, '.', '-' and '_', at most 100")
    return name


def _value(field: str, value: Any) -> Any:
    """What a form can hold; whether the service knows the field, and likes the value, it says itself."""
    match field, value:
        case "metadata", dict():
            return value
        case "threshold", [int() | float() as low, int() | float() as high]:
            return (low, high)
        case "webhook_events", list() if all(isinstance(one, str) for one in value):
            return value
        case _, str() | int() | float():
            return value
    raise UsageError(f"{field}: {json.dumps(value)[:80]} is not a value that it can have")
