"""The file that the chosen settings go to: foi.json."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from evaluation.pictures.problems import UsageError
from foi_core.checkpoint import own_defaults, read_defaults
from foi_core.model import DEFAULTS_FILE
from foi_core.spec import EditSpec, ModelDefaults, SubInstruction

CHOSEN = ("threshold", "guidance_scale", "image_guidance_scale")
"""What a calibration chooses of `ModelDefaults`; the rest stays."""


@dataclass(frozen=True)
class Target:
    """`path` is written to. `model` is a folder, a model id or "demo", and `folder` the first of these."""

    path: Path
    model: str
    folder: Path | None

    @classmethod
    def of(cls, model: str, out: Path | None, work: Path) -> Target:
        """`out` if it is given; else foi.json in the model's folder, and in `work` if the model has no folder of the
        user's own. Raises UsageError."""
        folder = None if model == "demo" or not Path(model).is_dir() else Path(model)
        path = out or (folder or work) / DEFAULTS_FILE
        if path.is_dir():
            raise UsageError(f"--out {path} is a folder: give a file, like {path / DEFAULTS_FILE}")
        return cls(path, model, folder)

    def defaults(self) -> ModelDefaults:
        """What holds so far: the file's, if it is there, else the model's. Raises UnsupportedCheckpoint."""
        model_has = own_defaults(self.model)  # refuses what is no model at all
        return read_defaults(self.path) if self.path.is_file() else model_has

    def write(self, before: ModelDefaults, after: ModelDefaults) -> Iterator[str]:
        """Writes the file; a different one that is there is kept under another name. Yields what to tell the user.
        Raises InvalidParameter for values out of range, and UsageError."""
        EditSpec((SubInstruction("any"),)).with_defaults(after, seed=0)  # checks the ranges
        content = json.dumps(asdict(after), indent=2) + "\n"
        kept = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.is_file() and read_defaults(self.path) != after:
                kept = _free_name(self.path)
                shutil.copy2(self.path, kept)
            temporary = self.path.with_name(self.path.name + ".tmp")
            temporary.write_text(content, encoding="utf-8")
            temporary.replace(self.path)
        except OSError as error:
            raise UsageError(f"{self.path} cannot be written ({error.strerror}): give --out FILE") from error
        yield f"written to {self.path}:"
        for name, value in asdict(after).items():
            old = asdict(before)[name]
            yield f"  {name}: {_shown(value)}" + (f" (before: {_shown(old)})" if old != value else "")
        if kept is not None:
            yield f"the file that was there is kept as {kept}"
        yield self._use()

    def _use(self) -> str:
        if self.folder is not None:
            place = self.folder / DEFAULTS_FILE
            if self.path.resolve() == place.resolve():
                return "services and commands take it when they load the model: start the workers again"
            return f"to use it, copy it to {place}"
        folder = (
            "copy the folder demo/model of this project"
            if self.model == "demo"
            else f'get a folder of the model (hf download {self.model} --exclude "*.ckpt" --local-dir DIR)'
        )
        return (
            f"to use it, the model needs a folder of your own: {folder}, put the file beside its model_index.json as "
            f"{DEFAULTS_FILE}, and set FOI_MODEL to that folder"
        )


def parse_choice(text: str) -> dict[str, Any]:
    """`threshold=0.4,guidance_scale=7.5` as fields of `ModelDefaults`. A threshold may be a range (0.4-0.7), or
    "default": the preset's own. Raises UsageError."""
    chosen: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or name not in CHOSEN or name in chosen:
            raise UsageError(f"--choose {text}: write NAME=VALUE,... with each of {', '.join(CHOSEN)} at most once")
        try:
            chosen[name] = _parse_threshold(value) if name == "threshold" else float(value)
        except ValueError as error:
            raise UsageError(f"--choose {text}: {value!r} is not a value of {name}") from error
    return chosen


def _parse_threshold(text: str) -> float | tuple[float, float] | None:
    if text == "default":
        return None
    low, *high = (float(bound) for bound in text.split("-", 1))
    return (low, high[0]) if high else low


def _free_name(path: Path) -> Path:
    """foi.json.old, or the first of foi.json.old-2, ... that is free."""
    names = (path.with_name(f"{path.name}.old{'' if i == 1 else f'-{i}'}") for i in count(1))
    return next(name for name in names if not name.exists())


def _shown(value: Any) -> str:
    return "the preset's own" if value is None else json.dumps(value)
