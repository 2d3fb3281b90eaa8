"""The figures as one picture; a leg that has none leaves its panel empty and says so."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.gpu.results import Results
from benchmarks.gpu.subjects import BASELINES
from evaluation.scenes.plots import BLUE, GREY, ORANGE, STYLE

Record = dict[str, Any]
COLOURS = {"A": GREY, "C": ORANGE}


def bars(axis: Axes, record: Record) -> None:
    """Medians, with a line from the smallest to the largest."""
    seconds: dict[str, list[float]] = record["seconds"]
    places = range(len(seconds))
    middle = [statistics.median(of) for of in seconds.values()]
    axis.bar(places, middle, color=[COLOURS.get(name, BLUE) for name in seconds], alpha=0.7)
    axis.vlines(places, [min(of) for of in seconds.values()], [max(of) for of in seconds.values()], color="black")
    axis.set_xticks(places, list(seconds), rotation=25, ha="right", fontsize=9)
    axis.set(ylabel="s", title=f"one edit, {record['side']}x{record['side']}")


def throughput(axis: Axes, record: Record) -> None:
    seconds: dict[str, list[float]] = record["seconds"]
    ours = {int(name.split()[0]): 1 / np.array(of) for name, of in seconds.items() if name not in BASELINES}
    axis.plot(list(ours), [float(np.median(of)) for of in ours.values()], "o-", color=BLUE, label="ours")
    axis.vlines(list(ours), [of.min() for of in ours.values()], [of.max() for of in ours.values()], color=BLUE)
    for name in [name for name in BASELINES if name in seconds]:
        rate = 1 / statistics.median(seconds[name])
        axis.axhline(rate, color=COLOURS[name], linestyle="--", label=f"{name}, one by one")
    axis.set(xlabel="plain edits in flight", ylabel="edits/s", title="throughput", ylim=(0, None), xticks=list(ours))
    axis.legend(fontsize=9)


def latencies(axis: Axes, record: Record) -> None:
    for name, colour in (("C", ORANGE), ("ours", BLUE)):
        times = np.sort(np.concatenate(record["latencies"][name]))
        axis.step(times, np.arange(1, len(times) + 1) / len(times), where="post", color=colour, label=name)
    axis.set(xlabel="latency, s", ylabel="share of edits", title=f"Poisson load, {record['rate_per_s']:.3g} edits/s")
    axis.legend(fontsize=9)


def timeline(axis: Axes, record: Record) -> None:
    """The host's calls above the GPU's work, for a few steps with one edit and with all."""
    traces: dict[str, Record] = record["traces"]
    for row, (name, of) in enumerate(traces.items()):
        for place, (what, colour) in enumerate((("gpu", BLUE), ("host", ORANGE))):
            bottom = 2.5 * row + place
            axis.broken_barh([(start, end - start) for start, end in of[what]], (bottom, 0.8), facecolor=colour)
            axis.text(0, bottom + 0.4, f"{what}, {name} ", ha="right", va="center", fontsize=9)
    axis.set_yticks([])
    axis.set(xlabel="ms", title="steps: the host's calls, the GPU's work")


PANELS: dict[str, Callable[[Axes, Record], None]] = {
    "single": bars,
    "throughput": throughput,
    "load": latencies,
    "idle": timeline,
}


def draw(results: Results, path: Path) -> None:
    with rc_context(STYLE):
        figure = Figure((11.0, 7.6), layout="constrained")
        for axis, (leg, panel) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
            record = results.legs.get(leg, {"error": "not measured"})
            if missing := record.get("skipped") or record.get("error"):
                axis.set_axis_off()
                axis.text(0.5, 0.5, f"{leg}: {missing[:60]}", ha="center", color=GREY)
            else:
                panel(axis, record)
        machine = results.all["machine"]
        figure.suptitle(f"{machine.get('gpu', machine['cpu'])}, {results.all['settings']['model']}", fontsize=10)
        figure.savefig(path, dpi=130)
