"""Where the files of an edit go, and what is told of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foi_cli.console import err, say
from foi_cli.editors import Made
from foi_cli.errors import EditError
from foi_client import Edit
from foi_client.files import write

STDOUT = Path("-")
TOLD = ("status", "input", "metrics", "safety", "warnings", "metadata", "error")


def save(made: Made, out: Path, masks: Path | None) -> dict[str, Any]:
    """The outputs go to `out`, the second to `NAME-2`, ...; the masks into the folder `masks`. What machines are told:
    as the service's API has it, with paths instead of addresses. Raises EditError and UnusableError."""
    edit = made.edit
    outputs = [_told(one.raw, _write(_numbered(out, i), made.fetch(one))) for i, one in enumerate(edit.outputs, 1)]
    if masks is None:
        regions = [_told(mask.raw, None) for mask in edit.masks]
    else:
        regions = [_told(mask.raw, _write(masks / mask.name, made.fetch(mask))) for mask in edit.masks]
    return {**{name: edit.raw.get(name) for name in TOLD}, "outputs": outputs, "masks": regions}


def failed(reason: Exception) -> dict[str, Any]:
    """What machines are told of an edit without a result."""
    return {"status": "failed", "error": {"detail": str(reason)}}


def show(edit: Edit, record: Mapping[str, Any]) -> None:
    """For people: the paths on stdout, one a line, and what is to know about them on stderr."""
    for mask in edit.masks:
        about = mask.keyword or edit.input.instructions[mask.instruction].text
        seed = f" (seed {mask.seed})" if edit.input.n > 1 else ""
        err.print(f"{about}: {mask.area:.1%} of the picture{seed}", markup=False)
    if edit.outputs and edit.metrics is not None and edit.metrics.change_outside_mask is not None:
        changed = edit.metrics.change_outside_mask
        outside = "nothing changed" if changed == 0 else f"pixels changed by up to {changed} of 255"
        err.print(f"outside the masks {outside}; seed {edit.input.seed}")
    for warning in edit.warnings:
        say(f"warning: {warning.message}", "yellow")
    for file in (*record["outputs"], *record["masks"]):
        if file["path"] not in (None, str(STDOUT)):
            print(file["path"])


def _numbered(out: Path, number: int) -> Path:
    return out if number == 1 else out.with_stem(f"{out.stem}-{number}")


def _write(path: Path, content: bytes) -> Path:
    """Whole or not at all."""
    try:
        if path == STDOUT:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        else:
            write(path, content)
    except OSError as error:
        raise EditError(f"{path} cannot be written: {error.strerror}") from error
    return path


def _told(raw: Mapping[str, Any], path: Path | None) -> dict[str, Any]:
    rest = {name: value for name, value in raw.items() if name != "url"}
    return {"path": None if path is None else os.fspath(path), **rest}
