"""Where weights come from: a folder, or a model id if the user allowed a download."""

from __future__ import annotations

from pathlib import Path

from evaluation.pictures.problems import UsageError


def checked_source(option: str, name: str, allow_download: bool) -> str:
    """`name` if it may be loaded: a folder as an absolute path, the id of a model as it is.

    Raises UsageError for an id without `allow_download`.
    """
    folder = Path(name)
    if folder.is_dir():
        return str(folder.resolve())
    if allow_download:
        return name
    raise UsageError(
        f"{option} {name}: there is no such folder. To get a model of that id from the Hugging Face hub, add "
        "--allow-download"
    )
