"""`foi edit --batch`: every line of a file, once. What is done is in results.jsonl, and is not done again."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from foi_cli.console import Bars, bars, say
from foi_cli.editors import Editor
from foi_cli.errors import EditError, Interrupted, UsageError
from foi_cli.lines import BadLine
from foi_cli.running import run
from foi_cli.saving import failed, save
from foi_cli.tasks import Task
from foi_client.files import write

RESULTS = "results.jsonl"


class Results:
    """The file of results: one object a line, `id` and the rest as `foi edit --json` tells it, with paths relative to
    the file. While a batch runs, what ends is added; at its begin and end there is one line for each id."""

    def __init__(self, folder: Path) -> None:
        """Raises UsageError."""
        self.folder, self.path = folder, folder / RESULTS
        self._lock = Lock()
        self._records: dict[str, dict[str, Any]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for line in self.path.read_bytes().splitlines() if self.path.exists() else ():
                self._take(line)
            self.rewrite()
        except OSError as error:
            raise UsageError(f"--out {folder} cannot be used: {error.strerror}") from error

    def done(self, task: Task, fingerprint: str, with_masks: bool) -> bool:
        """Whether the same edit has succeeded before, and its files are still there."""
        record = self._records.get(task.name)
        if record is None or record["status"] != "succeeded" or record["fingerprint"] != fingerprint:
            return False
        wanted = (*record["outputs"], *(record["masks"] if with_masks else ()))
        return all(one["path"] is not None and (self.folder / one["path"]).is_file() for one in wanted)

    def add(self, task: Task, fingerprint: str, told: dict[str, Any]) -> None:
        record = {"id": task.name, "line": task.line, "fingerprint": fingerprint, **told}
        for one in (*told.get("outputs", ()), *told.get("masks", ())):
            one["path"] = None if one["path"] is None else os.path.relpath(one["path"], self.folder)
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            self._records[task.name] = record
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def rewrite(self) -> None:
        ordered = sorted(self._records.values(), key=lambda record: record["line"])
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in ordered]
        write(self.path, "".join(lines).encode())

    def _take(self, line: bytes) -> None:
        """The last of an id counts; half a line is what a killed process left."""
        try:
            record = json.loads(line)
        except ValueError:
            return
        if isinstance(record, dict) and {"id", "line", "status", "fingerprint"} <= record.keys():
            self._records[record["id"]] = record


def edit_all(
    editor: Editor, tasks: Sequence[Task], bad: Sequence[BadLine], out: Path, masks: Path | None
) -> dict[str, Any]:
    """The counts. Raises EditError in the end where a line failed, Interrupted and UnusableError."""
    results = Results(out)
    counts = {"succeeded": 0, "skipped": 0, "failed": len(bad)}
    for line in bad:
        say(f"line {line.number}: {line.reason}")

    def ended(task: Task, outcome: str | Exception) -> None:
        shown.ended()
        if isinstance(outcome, str):
            counts[outcome] += 1
        else:
            counts["failed"] += 1
            say(f"line {task.line} ({task.name}): {outcome}")

    try:
        with bars(len(tasks)) as shown:
            run(tasks, lambda task: _edit(editor, task, results, masks, shown), editor.in_flight, ended, editor.cancel)
    except Interrupted as stopped:
        raise Interrupted(f"{stopped}; the same command goes on from here") from None
    finally:
        results.rewrite()
    return {**counts, "results": str(results.path)}


def _edit(editor: Editor, task: Task, results: Results, masks: Path | None, shown: Bars) -> str | Exception:
    """What is wrong with one line is no reason to stop."""
    fingerprint = ""
    try:
        fingerprint = task.fingerprint(editor.model)
        if results.done(task, fingerprint, masks is not None):
            return "skipped"
        with shown.edit(task.name) as tell:
            made = editor.edit(task, tell)
        suffix = str(task.fields.get("output_format", "png"))
        out = results.folder / task.name / f"result.{suffix}"
        told = save(made, out, masks and masks / task.name)
    except (EditError, UsageError) as error:
        results.add(task, fingerprint, failed(error))
        return error
    results.add(task, fingerprint, told)
    return "succeeded"
