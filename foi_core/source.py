"""Where a checkpoint's files are: in a folder, or on the model hub. Torch-free."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from foi_core.errors import UnsupportedCheckpoint


@dataclass(frozen=True)
class Source:
    """A checkpoint whose small files lie under `folder`. `names` are those of all its files, relative to it."""

    model: str
    folder: Path
    names: frozenset[str]

    def fetch(self, names: Collection[str]) -> None:
        """Brings files under `folder`; those of a folder are there."""


def find(model: str, revision: str | None = None) -> Source:
    """A folder, or a model id of the hub at `revision`, as `foi_core.hub.find` takes it. Raises
    UnsupportedCheckpoint."""
    path = Path(model)
    if path.is_dir():
        if revision is not None:
            raise UnsupportedCheckpoint(f"{model} is a folder, which has no revision: leave {revision!r} out")
        return Source(model, path, frozenset(names_under(path)))
    if path.is_file():
        raise UnsupportedCheckpoint(
            f"{model} is a single file, not a folder in diffusers' layout: "
            f"`python -m evaluation.checkpoints {model} OUT_FOLDER --tokenizer DIR` makes one of an original checkpoint"
        )
    from foi_core import hub  # here, because a folder needs nothing of the hub's library

    return hub.find(model, revision)


def names_under(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
