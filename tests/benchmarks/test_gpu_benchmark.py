"""The GPU benchmark runs to its end on a CPU with a tiny model; and what it computes from what it measured."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks.gpu import load, trace
from benchmarks.gpu.__main__ import LEGS, main
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.floor import counted, edit_flop
from benchmarks.gpu.inside import within_a_level
from benchmarks.gpu.plots import draw
from benchmarks.gpu.report import ROWS, rows_of, table
from benchmarks.gpu.results import Results
from benchmarks.gpu.rows import Goal
from benchmarks.gpu.timing import Meter
from benchmarks.random_model import SD15, random_pipeline
from tests.support import ROOT, python

TINY = ["--device=cpu", "--tiny", "--steps=2", "--repeats=1"]
NEED_CUDA = {"idle", "memory"}
CPU = torch.device("cpu")


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def read(folder: Path) -> Results:
    """What a run has left there."""
    found = json.loads((folder / "gpu.json").read_text())
    return Results(folder / "gpu.json", {part: found[part] for part in ("machine", "settings")}, fresh=False)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run."""
    out, results = tmp_path_factory.mktemp("gpu"), ROOT / "benchmarks" / "results"
    before = stamps(results)
    run = python("-m", "benchmarks.gpu", *TINY, f"--out={out}", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, told = run.communicate(timeout=280)
    finally:
        run.kill()
    assert run.returncode == 0, told
    assert stamps(results) == before, "a check of the script leaves the real results alone"
    return out


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """No leg may run."""

    def forbid(_: Bench) -> dict[str, Any]:
        raise AssertionError("measured again")

    for name in LEGS:
        monkeypatch.setitem(LEGS, name, forbid)


def test_every_leg_gives_figures_or_says_that_it_needs_cuda(measured: Path) -> None:
    results = read(measured)
    assert list(results.legs) == list(LEGS) == list(ROWS)
    assert {name for name, record in results.legs.items() if record.get("skipped") == "needs CUDA"} == NEED_CUDA
    for name in LEGS.keys() - NEED_CUDA:
        assert not results.problems(name)
        rows = rows_of(name, results)
        assert rows
        assert all(any(letter.isdigit() for letter in row.value) for row in rows), name
    assert set(results.legs["single"]["seconds"]) == {"A", "C", "eager ip2p", "eager foi"}
    assert set(results.legs["throughput"]["seconds"]) == {"A", "C", *(f"{n} together" for n in (1, 2, 4, 8))}
    assert set(results.legs["cold"]["seconds"]) == {"eager, ready", "eager, warm"}
    assert len(results.legs["load"]["latencies"]["ours"]) == len(results.legs["load"]["latencies"]["C"]) == load.ROUNDS


def test_the_table_of_a_check_judges_nothing(measured: Path) -> None:
    text = (measured / "gpu.md").read_text()
    assert "these figures mean nothing" in text
    assert "reached |" not in text
    assert "short |" not in text
    assert (measured / "gpu.png").stat().st_size > 10_000


@pytest.mark.usefixtures("forbidden")
def test_a_second_run_measures_nothing_again(measured: Path) -> None:
    before = (measured / "gpu.json").read_bytes()
    assert main([*TINY, f"--out={measured}"]) == 0
    assert (measured / "gpu.json").read_bytes() == before


@pytest.mark.usefixtures("forbidden")
def test_figures_of_other_settings_are_not_mixed(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--steps=3", f"--out={measured}"]) == 2
    assert "measured with steps 2, this run has 3" in capsys.readouterr().err


def test_a_broken_leg_is_reported_and_repeated_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def broken(_: Bench) -> dict[str, Any]:
        calls.append("broken")
        raise RuntimeError("no kernel image")

    def works(_: Bench) -> dict[str, Any]:
        calls.append("works")
        return {"execution": "eager", "side": 64, "seconds": {"A": [2.0], "8 together": [1.0]}, "failed": {}}

    monkeypatch.setitem(LEGS, "single", broken)
    monkeypatch.setitem(LEGS, "throughput", works)
    arguments = [*TINY, f"--out={tmp_path}", "--legs=throughput,single"]
    assert main(arguments) == 1
    assert read(tmp_path).legs["single"]["error"] == "RuntimeError: no kernel image"
    text = (tmp_path / "gpu.md").read_text()
    assert "| a single edit | failed: RuntimeError: no kernel image |" in text
    assert "| edits/s, 8 together against A | 2 (" in text
    assert "| cold start | not measured: `python -m benchmarks.gpu --legs cold` |" in text
    assert main(arguments) == 1
    assert calls == ["broken", "works", "broken"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--tiny", "--device=cpu"], "give --out another folder"),
        (["--tiny", "--device=cpu", "--out=benchmarks/results"], "give --out another folder"),
        (["--device=cpu", "--out=out"], "figures of a CPU say nothing about a GPU"),
        pytest.param(
            [],
            "this torch sees no CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device"),
        ),
    ],
)
def test_what_would_be_no_figure_of_a_gpu_is_refused_in_one_line(
    arguments: list[str], why: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert why in told
    assert told.count("\n") == 1


def test_what_is_compared_is_measured_in_turn_and_what_fails_is_left_out() -> None:
    order = []

    def work(name: str) -> float:
        order.append(name)
        if name == "c" and order.count("c") == 3:
            raise MemoryError("full")
        return float(order.count(name))

    meter = Meter(CPU, repeats=3, warm_ups=1, deadline=float("inf"))
    found = meter.in_turn({name: lambda name=name: work(name) for name in "abc"})  # type: ignore[misc]
    assert "".join(order) == "abc" + "abc" + "bca" + "ab"
    assert found.seconds == {"a": [2.0, 3.0, 4.0], "b": [2.0, 3.0, 4.0]}
    assert found.failed == {"c": "MemoryError: full"}


def test_a_leg_that_runs_out_of_time_says_that_it_has_fewer_repeats() -> None:
    found = Meter(CPU, repeats=5, warm_ups=1, deadline=0.0).in_turn({"a": lambda: 1.0})
    assert found.seconds == {"a": [1.0]}
    assert found.failed["repeats"].startswith("only 1 of 5")


def test_the_work_of_the_real_shape_is_what_was_counted_by_hand(tmp_path: Path) -> None:
    pipeline = random_pipeline(SD15, torch.device("meta"), torch.float16)
    assert sum(one.numel() for one in pipeline.unet.parameters()) == pytest.approx(859.5e6, rel=1e-3)
    pipeline.unet.save_config(tmp_path / "unet")
    pipeline.vae.save_config(tmp_path / "vae")
    pipeline.text_encoder.config.save_pretrained(tmp_path / "text_encoder")
    work = counted(tmp_path, 512)
    assert {part: round(flop / 1e12, 3) for part, flop in work.items()} == {
        "unet_row": 0.803,
        "encode": 1.117,
        "decode": 2.515,
        "text": 0.013,
    }
    assert [round(edit_flop(work, steps) / 1e12, 1) for steps in (80, 40)] == [196.5, 100.0]


def event(category: str, name: str, begun: float, lasted: float, correlation: int | None = None) -> dict[str, Any]:
    return {"cat": category, "name": name, "ts": begun, "dur": lasted, "args": {"correlation": correlation}}


def steps_of_two_kernels(gaps: list[float]) -> list[dict[str, Any]]:
    """Steps whose kernels take 40 and 50 us, 10 us apart; each gap in front of a step. The host is 30 us ahead."""
    events, now = [], 1000.0
    for i, gap in enumerate(gaps):
        now += gap
        events += [
            event("user_annotation", f"{trace.STEP}{i}", now - 30, 20),
            event("cuda_runtime", "cudaLaunchKernel", now - 25, 1, 2 * i),
            event("cuda_runtime", "cudaLaunchKernel", now - 20, 1, 2 * i + 1),
            event("kernel", "convolution", now, 40, 2 * i),
            event("kernel", "product", now + 50, 50, 2 * i + 1),
        ]
        now += 100
    return [*events, event("kernel", "of another thread", 0, 10, 999), event("cpu_op", "aten::add", 0, 1)]


def test_pauses_between_steps_are_told_from_those_within_them() -> None:
    found = trace.pauses(steps_of_two_kernels([0, 70, 0, 30, 25]))  # the first two are left out
    span = 3 * 100 + 55
    assert (found["steps"], found["kernels_per_step"]) == (3, 2)
    assert found["between"] == pytest.approx(55 / span)
    assert found["all"] == pytest.approx((55 + 3 * 10) / span)
    assert found["host"][0] == [0.0, 0.02]
    assert found["gpu"] == [[0.03, 0.13], [0.16, 0.26], [0.285, 0.385]]


def test_a_graphs_kernels_belong_to_the_step_that_launched_it() -> None:
    events = steps_of_two_kernels([0, 0, 0, 0])
    for one in events:
        if one["cat"] in ("cuda_runtime", "kernel") and one["args"]["correlation"] != 999:
            one["args"]["correlation"] //= 2
    assert trace.pauses(events)["kernels_per_step"] == 2


def test_what_only_a_gpu_gives_has_its_place_in_table_and_picture(tmp_path: Path) -> None:
    head = {"machine": {"cpu": "a CPU", "gpu": "a GPU"}, "settings": {"model": "random"}}
    results = Results(tmp_path / "gpu.json", head, fresh=True)
    found = trace.pauses(steps_of_two_kernels([0, 70, 0, 30, 25]))
    results.put("idle", {"execution": "graphs", "side": 512, "traces": {"1 together": found, "8 together": found}})
    of_memory = {"before": 0, "allocated": 5_004_000_000, "reserved": 6_000_000_000}
    results.put("memory", {"execution": "graphs", "side": 512, **of_memory})
    text = table(results, judged=True)
    assert "| GPU idle between steps, 8 together | 15.49% (2 kernels a step, 0.1183 ms a step) | <= 2% |" in text
    assert "| ... tensors against computed 4.17 GB | 1.200 | <= 1.25 | <= 1.1 | reached |" in text
    draw(results, tmp_path / "gpu.png")
    assert (tmp_path / "gpu.png").stat().st_size > 10_000


def test_a_trace_without_kernels_gives_no_figure() -> None:
    with pytest.raises(ValueError, match="no kernels"):
        trace.pauses([one for one in steps_of_two_kernels([0, 0, 0, 0]) if one["cat"] != "kernel"])


def test_arrivals_are_the_same_for_both_and_come_at_their_rate() -> None:
    times = load.arrivals(10, 1000, seed=1)
    assert times == sorted(times) == load.arrivals(10, 1000, seed=1) != load.arrivals(10, 1000, seed=2)
    assert len(times) / times[-1] == pytest.approx(10, rel=0.15)


def test_a_goal_is_reached_from_its_own_side() -> None:
    assert [Goal(0.6, 0.45).verdict(value) for value in (0.61, 0.6, 0.45)] == ["short", "reached", "stretch reached"]
    more = Goal(2.0, 2.5, higher=True)
    assert [more.verdict(value) for value in (1.9, 2.0, 2.5)] == ["short", "reached", "stretch reached"]


def test_pixels_within_a_level_are_counted_by_their_worst_channel() -> None:
    one = Image.new("RGB", (2, 2), (10, 10, 10))
    other = one.copy()
    other.putpixel((0, 0), (11, 9, 10))
    other.putpixel((1, 0), (10, 10, 12))
    assert within_a_level(one, other) == 0.75
