"""A minute of chaos on the real service; and the judge of it, who must be able to say no."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.chaos import Disturbance, Event, Found, difference, faults, plan, recoveries, summary, table
from tests.support import encoded, picture, python
from tests.tiny_model import build_tiny_model

URL = "/v1/edits/edit_1/files/result.png"
RECORD = {"status": "succeeded", "priority": "high", "outputs": [{"url": URL}]}
PICTURE = encoded(picture())
DARKER = encoded(picture().point(lambda level: max(0, level - 1)))
GOOD = Found(
    "edit_1",
    form=0,
    seen=RECORD,
    record=RECORD,
    events=(
        Event(1000, "status", "queued"),
        Event(2000, "status", "running"),
        Event(5000, "status", "queued"),
        Event(9000, "status", "running"),
        Event(9900, "status", "succeeded"),
        Event(9900, "output", None),
        Event(9900, "done", "succeeded"),
    ),
    files={URL: PICTURE},
)
END = GOOD.events[-1]
BAD = {
    "lost": replace(GOOD, seen=None, record=None, files={}),
    "failed": replace(GOOD, seen=None, record={"status": "failed", "outputs": []}, files={}),
    "doubled": replace(GOOD, events=(*GOOD.events[:-1], *GOOD.events[-2:])),
    "without a terminal event": replace(GOOD, events=GOOD.events[:-1]),
    "two terminal events": replace(GOOD, events=(*GOOD.events, END)),
    "news after its end": replace(GOOD, events=(*GOOD.events, Event(9999, "status", "running"))),
    "changed after its end": replace(GOOD, seen={**RECORD, "status": "canceled"}),
    "another picture": replace(GOOD, files={URL: DARKER}),
    "file missing": replace(GOOD, files={URL: None}),
}


def named(found: Found, **options: int) -> set[str]:
    return {name for name, is_so in faults(found, PICTURE, **options).items() if is_so}


def test_a_good_edit_has_no_fault() -> None:
    assert named(GOOD) == set()


@pytest.mark.parametrize("name", faults(GOOD, PICTURE))
def test_every_fault_is_found(name: str) -> None:
    assert named(BAD[name]) == {name}


def test_a_fault_names_its_edit() -> None:
    report = summary([GOOD, replace(BAD["two terminal events"], edit_id="edit_2")], [PICTURE], [], rounding=0)
    assert {name: ids for name, ids in report["faults"].items() if ids} == {"two terminal events": ["edit_2"]}


def test_only_rounding_may_be_forgiven() -> None:
    inverted = encoded(picture().point(lambda level: 255 - level))
    assert [difference(other, PICTURE) for other in (PICTURE, DARKER)] == [0, 1]
    assert named(BAD["another picture"], rounding=1) == set()
    assert named(replace(GOOD, files={URL: inverted}), rounding=1) == {"another picture"}


def test_recovery_counts_from_the_kill_and_only_for_edits_that_were_running() -> None:
    kills = [Disturbance(ms, "kill", "worker", ["edit_1"]) for ms in (1500, 3000, 6000, 9950)]
    api = Disturbance(0, "kill", "service", [], seconds=1.5)
    assert recoveries([*kills, api], [GOOD]) == {
        "worker killed: its edit is queued again": [2.0],
        "worker killed: its edit of high priority runs again": [6.0],
        "service killed: it answers again": [1.5],
    }


def test_every_kind_of_process_is_killed_and_the_seed_decides_when() -> None:
    planned = plan(10, 2, 1, seconds_between=8, seed=0)
    kills = Counter(one.target for one in planned if one.action == "kill")
    assert (kills.keys(), kills.total()) == ({"worker", "service", "redis"}, 10)
    assert Counter(one.target for one in planned if one.action == "stop") == {"worker": 2, "redis": 1}
    cuts = plan(0, 0, 0, seconds_between=8, seed=0, cuts=3)
    assert Counter(one.target for one in cuts if one.action == "cut") == {"redis": 2, "service": 1}
    assert planned == plan(10, 2, 1, seconds_between=8, seed=0) != plan(10, 2, 1, seconds_between=8, seed=1)


def test_no_acknowledged_edit_notices_the_chaos(tmp_path: Path) -> None:
    """Alone in its batch, an edit has the same bytes each time."""
    sizes = ["--edits=24", "--kills=3", "--stops=1", "--redis-pauses=1", "--cuts=2"]
    sizes += ["--seconds-between=2", "--in-flight=1"]
    given = [f"--model={build_tiny_model(tmp_path / 'model')}", f"--out={tmp_path}"]
    temporary = {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    run = python("-m", "benchmarks.chaos", *sizes, *given, environment=temporary, stderr=subprocess.PIPE)
    _, told = run.communicate(timeout=300)
    assert run.returncode == 0, told
    report = json.loads((tmp_path / "chaos.json").read_text())
    assert report["acknowledged"] == report["same_bytes"] >= 24
    assert set(map(len, report["faults"].values())) == {0}
    assert report["unacknowledged"] == 0
    done = Counter(f"{one['action']} {one['target']}" for one in report["disturbances"])
    assert done.pop("kill worker") + done.pop("kill service") + done.pop("kill redis") == 3
    assert done == {"stop worker": 1, "stop redis": 1, "cut redis": 1, "cut service": 1}
    assert (tmp_path / "chaos.md").read_text() == table(report)
    assert (tmp_path / "chaos.png").stat().st_size > 1000
