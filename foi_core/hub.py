"""A checkpoint's files on the model hub, brought into its library's cache. Torch-free."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, get_cached_repo_tree, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)
from huggingface_hub.utils.tqdm import disable_progress_bars

from foi_core.errors import UnsupportedCheckpoint
from foi_core.layout import SMALL_FILES
from foi_core.source import Source, names_under

PINNED = {"timbrooks/instruct-pix2pix": "31519b5cb02a7fd89b906d88731cd4d6a7bbf88d"}
"""The commits that known models are loaded at where no revision is given."""
TOLD_EVERY_S = 10
TOLD_EVERY_SHARE = 0.1

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Repository(Source):
    """A model at one commit of the hub; `sizes` are of all its files, in bytes."""

    commit: str
    sizes: Mapping[str, int]

    def fetch(self, names: Collection[str]) -> None:
        """What is there is not fetched again, and a broken connection is taken up where it broke; the log tells how far
        it is. Raises UnsupportedCheckpoint."""
        missing = [name for name in names if not (self.folder / name).exists()]
        if not missing:
            return
        progress = Progress(self.model, sum(self.sizes[name] for name in missing))
        log.info(
            "downloading %s at %s: %d files, %s", self.model, self.commit, len(missing), _gigabytes(progress.total)
        )
        with _explained(self.model, self.commit):
            for name in missing:  # one by one in this thread, so that a signal ends it at once
                hf_hub_download(self.model, name, revision=self.commit, tqdm_class=progress)  # type: ignore[call-overload]
        log.info("downloaded %s", self.model)


def find(model: str, revision: str | None = None) -> Repository:
    """A model id at `revision` (a commit, tag or branch; None: the pinned commit of a known model, else the present
    one, which the log names), with its small files. Raises UnsupportedCheckpoint."""
    disable_progress_bars()  # bars that redraw themselves garble a log
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for each request, with signed addresses
    with _explained(model, revision):
        commit = _commit(model, revision)
        folder = Path(snapshot_download(model, revision=commit, allow_patterns=SMALL_FILES))
    try:
        sizes = {file.path: file.size for file in get_cached_repo_tree(model, revision=commit)}
    except CachedRepoTreeNotFoundError:  # no network, and a cache that another version of the hub's library has filled
        sizes = dict.fromkeys(names_under(folder), 0)
    return Repository(model, folder, frozenset(sizes), commit, sizes)


def cached_commit(model: str, revision: str | None = None) -> str:
    """The commit that `find` has found before."""
    revision = revision or PINNED.get(model)
    return HfApi().resolve_revision(model, revision=revision, local_files_only=True).resolved


def _commit(model: str, revision: str | None) -> str:
    commit = HfApi().resolve_revision(model, revision=revision or PINNED.get(model)).resolved
    if revision is None and model not in PINNED:
        log.warning(
            "%s is taken at its present commit %s, and may be another at the next start; to stay with this one, "
            "set FOI_MODEL_REVISION=%s",
            model,
            commit,
            commit,
        )
    return commit


@contextmanager
def _explained(model: str, revision: str | None) -> Iterator[None]:
    """The hub's errors as UnsupportedCheckpoint: what is wrong, and what to do."""
    at = f" at {revision}" if revision else ""
    try:
        yield
    except HFValidationError as error:
        raise UnsupportedCheckpoint(f"there is no folder {model!r}, nor is that a model id (owner/name)") from error
    except GatedRepoError as error:
        raise UnsupportedCheckpoint(
            f"{model!r} is gated: ask for access at https://huggingface.co/{model}, then set HF_TOKEN to your token"
        ) from error
    except RevisionNotFoundError as error:
        raise UnsupportedCheckpoint(
            f"{model!r} has no revision {revision!r}: give a commit, tag or branch of it (FOI_MODEL_REVISION)"
        ) from error
    except RepositoryNotFoundError as error:
        raise UnsupportedCheckpoint(
            f"there is no folder {model!r} here and no public model of that id on the hub: check the name; "
            "for a private one set HF_TOKEN"
        ) from error
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, RevisionResolutionError, httpx2.HTTPError) as error:
        raise UnsupportedCheckpoint(
            f"{model!r}{at} is not whole in the cache of this machine, and the hub does not give it "
            f"({_reason(error)}): check the network and HF_HUB_OFFLINE, or download it elsewhere and give its folder"
        ) from error
    except OSError as error:
        raise UnsupportedCheckpoint(f"{model!r}{at} cannot be stored in the cache (HF_HOME): {error}") from error


def _reason(error: BaseException) -> str:
    """The first cause, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no details'}"[:200]


class Progress:
    """A download's bytes as log lines. Stands for tqdm's class and for its bars: the hub's library makes one of each
    file, and all are this."""

    def __init__(self, model: str, total: int) -> None:
        self.total = total
        self._model, self._done, self._told = model, 0, 0
        self._next = time.monotonic() + TOLD_EVERY_S

    def update(self, count: float | None = 1) -> None:
        """`count` further bytes are on the disk; negative where they have to be fetched again."""
        self._done += int(count or 0)
        if self._done - self._told >= TOLD_EVERY_SHARE * self.total or time.monotonic() > self._next:
            self._told, self._next = self._done, time.monotonic() + TOLD_EVERY_S
            share, done = self._done / self.total, _gigabytes(self._done)
            log.info("downloading %s: %.0f %%, %s of %s", self._model, 100 * share, done, _gigabytes(self.total))

    def __call__(self, **_: object) -> Progress:
        return self

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update_transfer(self, count: float | None = 1) -> None:
        """Bytes as they come from the network, which may be fewer than on the disk."""

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        pass

    set_transfer_postfix_str = set_postfix_str

    def close(self) -> None:
        pass


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
