"""The command itself: its help, its errors, its start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from foi_cli.errors import UnusableError, needing
from tests.cli.conftest import SCENE, Foi, Here, environment, one_line
from tests.support import ROOT

COMMANDS = {"edit", "masks", "serve", "worker", "keys", "eval", "calibrate", "info", "doctor", "openapi"}


def test_help_names_every_command_without_loading_torch_or_the_service() -> None:
    code = (
        "import sys; from foi_cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: sys.exit(' '.join({'torch', 'transformers', 'redis', 'fastapi'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
    assert all(f" {command} " in done.stdout for command in COMMANDS)


def test_without_a_command_the_help_is_shown(here: Here) -> None:
    done = here()
    assert done.exit_code == 0
    assert "edit" in done.stdout


def test_the_version_is_the_packages(here: Here) -> None:
    assert here("--version").stdout == "0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nope"], "No such command 'nope'"),
        (["--nope"], "No such option: --nope"),
        (["edit", "a.png", "--nope"], "No such option: --nope"),
        (["edit", "a.png", "-i", "x", "--steps", "many"], "--steps"),
        (["edit", "a.png", "-i", "x", "--steps", "151"], "--steps"),
        (["edit", "a.png", "-i", "x", "--seed", "-1"], "--seed"),
        (["edit", "a.png", "-i", "x", "--method", "magic"], "--method"),
        (["edit", "a.png", "-i", "x"], "there is no picture a.png"),
        (["edit", str(SCENE)], "say what to change"),
        (["edit"], "give a picture"),
        (["masks"], "Missing argument"),
        (["edit", str(SCENE), "-i", "x", "-o", "result.gif"], "must end in .png"),
        (["edit", str(SCENE), "-i", "x", "-o", "-", "--json"], "stdout holds one picture"),
        (["edit", str(SCENE), "-i", "x", "-o", "-", "-n", "2"], "stdout holds one picture"),
        (["edit", str(SCENE), "--batch", "edits.jsonl", "--out", "d"], "with --batch"),
        (["edit", "--batch", "edits.jsonl"], "--out DIR"),
        (["edit", "--batch", "edits.jsonl", "--out", "d"], "edits.jsonl cannot be read"),
        (["edit", str(SCENE), "-i", "x", "--server", "there"], "begins with http://"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(here: Here, arguments: list[str], says: str) -> None:
    done = here(*arguments)
    assert done.exit_code == 2
    assert says in one_line(done.stderr)
    assert done.stdout == ""


def test_a_wrong_setting_is_named(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOI_PORT", "http")
    done = here("info")
    assert done.exit_code == 2
    assert "FOI_PORT=http" in one_line(done.stderr)


def test_where_nobody_looks_there_are_no_colours_and_no_bars(foi: Foi, tmp_path: Path) -> None:
    for arguments in (["--help"], ["nope"], ["edit", str(SCENE), "-i", "make the ball blue", "--steps", "2"]):
        done = foi(*arguments)
        assert b"\x1b" not in done.stdout + done.stderr
        assert "\N{HEAVY ASTERISK}" not in done.stderr.decode()
    assert (tmp_path / "scene-edited.png").is_file()


def test_a_shell_can_complete_commands_and_options() -> None:
    for words, expected in (("foi ed", "edit"), ("foi edit --guid", "--guidance-scale")):
        variables = {
            "_FOI_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        done = subprocess.run(
            [sys.executable, "-m", "foi_cli"], env=environment(**variables), capture_output=True, text=True, check=False
        )
        assert done.stdout.split() == [expected], done.stderr


def test_a_missing_package_is_named_with_what_to_install() -> None:
    with pytest.raises(UnusableError, match=r"no_such_package.*pip install .*\[worker\]"), needing("worker"):
        import no_such_package  # noqa: F401
