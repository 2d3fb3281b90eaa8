"""One edit that is wanted, whether it is made here or by a service: from the options of a command."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from foi_cli.errors import UsageError
from foi_client import Fields, Instructions, SubInstruction
from foi_client.forms import Form, form
from foi_core.splitting import split_instruction

STDIN = "-"
_NUMBERED = re.compile(r"(\d+)=(.*)", re.DOTALL)


@dataclass(frozen=True)
class Task:
    """`image` is None where `fields` have an `image_url`. `looks`: only regions are wanted. `line`: of a batch."""

    name: str
    image: Path | bytes | None
    instruction: Instructions
    fields: Mapping[str, Any]
    looks: bool = False
    line: int | None = None

    def form(self) -> Form:
        """As it is sent to a service. Reads the files. Raises UsageError."""
        try:
            return form(self.image, self.instruction, cast(Fields, self.fields))
        except OSError as error:
            raise UsageError(f"{error.filename} cannot be read: {error.strerror}") from error

    def fingerprint(self, model: str) -> str:
        """Changes with everything that the result depends on. Raises UsageError."""
        sent = self.form()
        files = {name: hashlib.sha256(content).hexdigest() for name, (_, content, _) in sent.files.items()}
        return hashlib.sha256(json.dumps([model, sent.texts, files], sort_keys=True).encode()).hexdigest()


def read_image(given: str) -> Path | bytes:
    """A path, or what stdin holds. Raises UsageError."""
    if given == STDIN:
        return sys.stdin.buffer.read()
    path = Path(given)
    if not path.is_file():
        raise UsageError(f"there is no picture {given}")
    return path


def instructions(
    texts: Sequence[str], keywords: Sequence[str], intensities: Sequence[str], masks: Sequence[str]
) -> Instructions:
    """One text by itself is left for splitting; with options of its own, each part must be known. Raises UsageError."""
    if not texts:
        raise UsageError("say what to change: --instruction 'make the ball blue'")
    if not (keywords or intensities or masks):
        return texts[0] if len(texts) == 1 else list(texts)
    parts = list(split_instruction(texts[0])) if len(texts) == 1 else list(texts)
    keyword_of = _by_part("--keyword", keywords, parts)
    intensity_of = _by_part("--intensity", intensities, parts)
    mask_of = _by_part("--mask", masks, parts)
    return [
        SubInstruction(
            text,
            keyword_of.get(i),
            _number("--intensity", intensity_of[i]) if i in intensity_of else None,
            read_image(mask_of[i]) if i in mask_of else None,
        )
        for i, text in enumerate(parts, 1)
    ]


def _by_part(option: str, values: Sequence[str], parts: Sequence[str]) -> dict[int, str]:
    """`2=grass` is for the second part; the number may be left out where there is only one."""
    found: dict[int, str] = {}
    for value in values:
        match = _NUMBERED.fullmatch(value)
        if match is None and len(parts) > 1:
            listed = "; ".join(f"{i} {text}" for i, text in enumerate(parts, 1))
            raise UsageError(f"{option} {value}: say for which instruction, like 1={value} ({listed})")
        number, rest = (int(match[1]), match[2]) if match else (1, value)
        if not 1 <= number <= len(parts):
            raise UsageError(f"{option} {value}: there is no instruction {number}, but 1 to {len(parts)}")
        if number in found:
            raise UsageError(f"{option}: instruction {number} has it twice")
        found[number] = rest
    return found


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{option}: {text!r} is not a number") from None
