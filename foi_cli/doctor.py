"""`foi doctor`: what is missing here, and how to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from foi_cli.checks import Finding, State, examine
from foi_cli.console import err, write_json

STYLES: dict[State, str] = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON on stdout.")] = False) -> None:
    """Say what is missing to edit and to serve here, with the fix.

    Exit status 1 where something needed is missing. Downloads nothing, and leaves nothing behind.
    """
    with err.status("looking"):
        findings = list(examine())
    if as_json:
        write_json({"findings": [asdict(finding) for finding in findings]})
    else:
        Console(highlight=False).print(_table(findings))
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def _table(findings: Sequence[Finding]) -> Table:
    table = Table("", "part", Column("found", overflow="fold"), Column("what to do", overflow="fold"))
    for finding in findings:
        state = f"[{STYLES[finding.state]}]{finding.state}[/]"
        table.add_row(state, finding.part, *map(_plain, (finding.found, finding.fix)))
    return table


def _plain(text: str) -> str:
    """Brackets in it are no markup."""
    return text.replace("[", "\\[")
