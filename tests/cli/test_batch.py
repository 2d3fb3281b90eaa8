"""`foi edit --batch`: every line once, however often it is started."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import pytest
from PIL import Image

from foi_cli.batch import edit_all
from foi_cli.errors import UnusableError
from foi_cli.lines import read_lines
from foi_cli.local import LocalEditor
from foi_cli.tasks import Task
from foi_core.batching import Capacity
from jobs.settings import Settings
from tests.cli.conftest import FEW, SCENE, Foi, Here, Start, lines_file, one_line, results_of
from tests.client.conftest import Editing
from tests.support import FakeEngine, picture, wait_until

BLUE = {"id": "blue", "image": "scene.png", "instruction": "make the ball blue"}
TWO = {"id": "two", "image": "scene.png", "instruction": ["make the ball red", "turn the sky orange"], "n": 2}
ODD = {"image": "scene.png", "instructions": [{"text": "make the ball red", "keyword": "hat"}]}


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return Path(shutil.copy(SCENE, tmp_path))


def counts(stdout: str) -> dict[str, int]:
    found = json.loads(stdout)
    return {name: found[name] for name in ("succeeded", "skipped", "failed")}


def test_bad_lines_are_told_with_their_number_and_the_others_go_on(here: Here, scene: Path) -> None:
    lines_file(scene.parent, BLUE, "nonsense", TWO, "", ODD)
    done = here("edit", "--batch", "edits.jsonl", "--out", "out", *FEW, "--json")
    assert done.exit_code == 1
    assert counts(done.stdout) == {"succeeded": 2, "skipped": 0, "failed": 2}
    told = done.stderr.splitlines()
    assert len(told) == 2
    assert told[0].startswith("foi: line 2: not JSON")
    assert told[1].startswith("foi: line 5 (5-scene): instructions[0].keyword: 'hat'")
    records = results_of(scene.parent / "out")
    assert {name: record["status"] for name, record in records.items()} == {
        "blue": "succeeded",
        "two": "succeeded",
        "5-scene": "failed",
    }
    assert [one["path"] for one in records["two"]["outputs"]] == ["two/result.png", "two/result-2.png"]
    assert records["two"]["input"]["seed"] == 7, "the command's, for a line that names none"


def test_the_same_command_does_only_what_is_missing(here: Here, scene: Path) -> None:
    folder = scene.parent
    command = ("edit", "--batch", "edits.jsonl", "--out", "out", *FEW, "--json")
    lines_file(folder, BLUE, ODD)
    here(*command)
    made = (folder / "out" / "blue" / "result.png").stat().st_mtime_ns
    lines_file(folder, BLUE, TWO)  # the second line is new, or mended
    done = here(*command)
    assert done.exit_code == 0
    assert counts(done.stdout) == {"succeeded": 1, "skipped": 1, "failed": 0}
    assert (folder / "out" / "blue" / "result.png").stat().st_mtime_ns == made
    assert counts(here(*command, "--masks", "out").stdout)["succeeded"] == 2, "the masks were not wanted before"
    (folder / "out" / "blue" / "result.png").unlink()
    Image.open(scene).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(scene)
    assert counts(here(*command).stdout) == {"succeeded": 2, "skipped": 0, "failed": 0}


def test_ctrl_c_stops_a_batch_which_then_goes_on(start: Start, here: Here, scene: Path) -> None:
    folder = scene.parent
    lines_file(folder, *({**BLUE, "id": str(number)} for number in range(40)))
    command = ("edit", "--batch", "edits.jsonl", "--out", "out", "--seed", "1", "--steps", "10")
    process = start(*command)
    results = folder / "out" / "results.jsonl"
    wait_until(lambda: results.exists() and results.stat().st_size, 60)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command goes on from here" in one_line(error)
    done = [name for name, one in results_of(folder / "out").items() if one["status"] == "succeeded"]
    assert 0 < len(done) < 40
    lines_file(folder, *({**BLUE, "id": name} for name in [*done, "new"]))
    assert counts(here(*command, "--json").stdout) == {"succeeded": 1, "skipped": len(done), "failed": 0}


def test_edits_of_this_process_share_batches(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    engine = FakeEngine(lambda: time.sleep(0.02), steps=20)
    editor = LocalEditor(Settings(), engine, Capacity(4, 10**6))  # type: ignore[arg-type]
    tasks = [Task(str(i), tmp_path / "a.png", "make the ball blue", {}, line=i) for i in range(12)]
    try:
        told = edit_all(editor, tasks, [], tmp_path / "out", None)
    finally:
        editor.close()
    assert told["succeeded"] == 12
    assert engine.together == 4


def test_a_batch_ends_where_nothing_more_can_be_done(tmp_path: Path) -> None:
    class Dead:
        model, in_flight = "none", 2

        def edit(self, *_: object) -> None:
            raise UnusableError("the service is gone")

        def cancel(self) -> None:
            pass

    tasks = [Task(str(i), b"", "make the ball blue", {}, line=i) for i in range(9)]
    with pytest.raises(UnusableError, match="gone"):
        edit_all(Dead(), tasks, [], tmp_path / "out", None)  # type: ignore[arg-type]
    assert results_of(tmp_path / "out") == {}, "no line is to blame"


def test_half_a_line_of_a_killed_run_and_foreign_lines_are_no_results(here: Here, scene: Path) -> None:
    lines_file(scene.parent, BLUE)
    command = ("edit", "--batch", "edits.jsonl", "--out", "out", *FEW, "--json")
    here(*command)
    with (scene.parent / "out" / "results.jsonl").open("a") as file:
        file.write('{"of": "another program"}\n{"id": "blue", "line": 1, "stat')
    assert counts(here(*command).stdout)["skipped"] == 1
    assert list(results_of(scene.parent / "out")) == ["blue"]


def test_a_service_makes_a_batch_and_failures_are_its_lines(
    foi: Foi, address: str, editing: Editing, scene: Path
) -> None:
    lines_file(scene.parent, BLUE, TWO, ODD, {**BLUE, "id": "url", "steps": 4})
    command = ("edit", "--batch", "edits.jsonl", "--out", "out", "--seed", "1", "--json", "--server", address)
    with editing():
        first, second = foi(*command), foi(*command)
    assert (first.returncode, second.returncode) == (1, 1)
    assert counts(first.stdout.decode()) == {"succeeded": 2, "skipped": 0, "failed": 2}
    assert counts(second.stdout.decode()) == {"succeeded": 0, "skipped": 2, "failed": 2}
    told = sorted(first.stderr.decode().splitlines())
    assert [line.split(": ")[1] for line in told] == ["line 3 (3-scene)", "line 4 (url)"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[1]", "not an object"),
        ({"instruction": "x"}, "image is missing"),
        ({"image": 3, "instruction": "x"}, "image is missing, or no path"),
        ({"image": "none.png", "instruction": "x"}, "there is no file"),
        ({"image": "scene.png"}, "needs an instruction"),
        ({"image": "scene.png", "instruction": "x", "instructions": []}, "needs an instruction"),
        ({"image": "scene.png", "instructions": []}, "a list of objects with a text"),
        ({"image": "scene.png", "instructions": [3]}, "instructions[0] is no text"),
        ({"image": "scene.png", "instructions": [{"text": "x", "colour": "y"}]}, "colour is unknown"),
        ({"image": "scene.png", "instructions": [{"text": "x", "mask": "none.png"}]}, "there is no file"),
        ({**BLUE, "id": "../up"}, "cannot name a folder"),
        ({**BLUE, "id": ""}, "cannot name a folder"),
        ({**BLUE, "seed": [1]}, "seed: [1] is not a value"),
        ({**BLUE, "threshold": [1, "x"]}, "threshold:"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(scene: Path, line: dict[str, object] | str, says: str) -> None:
    tasks, bad = read_lines(lines_file(scene.parent, {**BLUE, "id": "first"}, line, {**TWO, "id": "last"}), {})
    assert [task.name for task in tasks] == ["first", "last"]
    assert [one.number for one in bad] == [2]
    assert says in str(bad[0].reason)


def test_an_id_stands_for_one_line(scene: Path) -> None:
    tasks, bad = read_lines(lines_file(scene.parent, BLUE, TWO, BLUE), {})
    assert len(tasks) == 2
    assert "earlier line's" in str(bad[0].reason)


def test_fields_of_a_line_come_before_those_of_the_command(scene: Path) -> None:
    line = {**BLUE, "seed": 3, "threshold": [0.4, 0.7], "metadata": {"a": 1}, "n": None}
    (task,), _ = read_lines(lines_file(scene.parent, line), {"seed": 1, "num_inference_steps": 4})
    assert task.fields == {"seed": 3, "num_inference_steps": 4, "threshold": (0.4, 0.7), "metadata": {"a": 1}}
    assert task.form().texts["threshold"] == "0.4-0.7"
