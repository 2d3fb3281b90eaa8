"""Every block of code in the docs is run as it stands, or says why not.

Blocks of one document and language run together, top to bottom, against the real service with the demo model.
`<!-- not run: why -->` on the line before a block leaves it out. Blocks without a language, or `text`, are no code.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from demo.showcase import running_service
from tests.support import ROOT

ADDRESS = "http://127.0.0.1:8000"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = {"client.md": "tests/client/test_docs.py", "cli.md": "tests/cli/test_docs.py"}
"""Documents whose blocks another test runs."""
FENCE = re.compile(r"^(?:<!-- not run: ([^\n]+) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FOI = f'foi() {{ {sys.executable} -m foi_cli "$@"; }}'
RUN = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
NO_CODE = ("", "text")


class Block(NamedTuple):
    """`left_out` says why it is not run."""

    left_out: str
    language: str
    code: str


def blocks(document: Path) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(document.read_text())]


def to_run(document: Path, language: str) -> str:
    return "\n".join(one.code for one in blocks(document) if one.language == language and not one.left_out)


RUNNABLE = [
    pytest.param(document, language, id=f"{document.name}-{language}")
    for document in DOCUMENTS
    for language in RUN
    if document.name not in ELSEWHERE and to_run(document, language)
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("docs")
    with running_service(folder) as url:
        yield url, folder


@pytest.mark.parametrize(("document", "language"), RUNNABLE)
def test_every_example_runs(document: Path, language: str, service: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = service
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    code = to_run(document, language).replace(ADDRESS, url).replace(".venv/bin/python", sys.executable)
    if language == "sh":
        code = f"{FOI}\n{code}"
    environment = {**os.environ, "FOI_DATA_DIR": str(folder / "data"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*RUN[language], code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"status":5' not in done.stdout + done.stderr
    assert not re.search(r'"type":\s*"/problems/', done.stdout), done.stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_block_is_run_or_says_why_not(document: Path) -> None:
    found = blocks(document)
    fences = re.findall(r"^\s*```", document.read_text(), re.MULTILINE)
    assert len(fences) == 2 * len(found), "a fence that is indented or not closed"
    for block in found:
        known = block.left_out or block.language in (*RUN, *NO_CODE, "json")
        assert known, f"nothing runs this block: {block.code}"
        if block.language == "json" and not block.left_out:
            assert [json.loads(line) for line in block.code.splitlines()]


@pytest.mark.parametrize("name", [name for name in ELSEWHERE if (ROOT / "docs" / name).exists()])
def test_blocks_that_are_run_elsewhere_are(name: str) -> None:
    assert name in (ROOT / ELSEWHERE[name]).read_text()


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "SECURITY.md"], ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#\s]+)", document.read_text())
    assert not [link for link in links if not (document.parent / link).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_are_there(document: Path) -> None:
    named = set(re.findall(r"`(?:[\w/]+/)?(\w+\.py)", document.read_text()))
    there = {path.name for path in ROOT.glob("*/**/*.py") if ".venv" not in path.parts}
    assert not named - there
