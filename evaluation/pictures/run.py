"""The run itself: every item by every method, one after the other; what is done is not done again."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol, TypeVar

import torch
from tqdm import tqdm

from evaluation.pictures.data import Item
from evaluation.pictures.measures import Judges, measure
from evaluation.pictures.methods import Outcome
from evaluation.pictures.problems import BadLine, Problem
from evaluation.pictures.store import Row, Store
from foi_core import InvalidParameter, ModelFailure

Name = TypeVar("Name", bound=str)
Known = TypeVar("Known", bound=str, contravariant=True)


class Editor(Protocol[Known]):
    """Makes the edits of a run: `methods.Editor`, or a calibration's own. Its methods have names."""

    def can(self, method: Known, item: Item) -> bool: ...

    def edit(self, method: Known, item: Item) -> Outcome:
        """Raises InvalidParameter and ModelFailure as the engine does."""
        ...


def run(
    items: Sequence[Item],
    methods: Sequence[Name],
    editor: Editor[Name],
    judges: Judges,
    store: Store,
) -> list[Problem]:
    """Makes and measures what is missing in `store`, item by item; returns the edits that failed, which stderr
    has been told.

    An edit that is done but was measured by other judges is measured again, from its stored picture.
    """
    wanted = [(item, method) for item in items for method in methods if editor.can(method, item)]
    todo = [(i, m) for i, m in wanted if (row := store.find(i, m)) is None or row.judges != dict(judges.sources)]
    problems = []
    # What is done counts as such, but not into the speed that the time left is told by.
    with tqdm(total=len(wanted), initial=len(wanted) - len(todo), unit="edit") as bar:
        for item, method in todo:
            bar.set_description(f"{item.id} {method}")
            try:
                _make(item, method, editor, judges, store)
            except (BadLine, InvalidParameter, ModelFailure, torch.OutOfMemoryError) as error:
                problems.append(Problem(item.place, f"{method}: {error}"))
                tqdm.write(str(problems[-1]), file=sys.stderr)
            bar.update()
    return problems


def finished(items: Sequence[Item], methods: Sequence[str], store: Store) -> list[Row]:
    """The results of these items by these methods, as far as they are there, method by method."""
    rows = (store.find(item, method) for method in methods for item in items)
    return [row for row in rows if row is not None]


def _make(item: Item, method: Name, editor: Editor[Name], judges: Judges, store: Store) -> None:
    row = store.find(item, method)
    if row is None:
        outcome = editor.edit(method, item)
        store.add(item, method, outcome, judges.sources, measure(item, outcome.image, outcome.masks, judges))
    else:
        store.measure_again(row, judges.sources, measure(item, *store.pictures(row), judges))
