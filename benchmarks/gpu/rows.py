"""The table's rows: what each leg's record says, and its goals."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.gpu.floor import edit_flop
from benchmarks.gpu.results import Results
from benchmarks.gpu.speed import TOGETHER
from benchmarks.gpu.subjects import BASELINES
from benchmarks.gpu.timing import spread

Record = dict[str, Any]
COMPUTED_MEMORY = 4.17e9
"""Bytes of eight edits in flight in float16, counted: weights and the activations of 24 rows."""


@dataclass(frozen=True)
class Goal:
    """What a figure should reach, and at best, where a number can say that."""

    target: float
    stretch: float | None
    shown: str = "{:g}"
    higher: bool = False

    def verdict(self, value: float) -> str:
        sign = -1 if self.higher else 1
        if self.stretch is not None and sign * value <= sign * self.stretch:
            return "stretch reached"
        return "reached" if sign * value <= sign * self.target else "short"

    def cells(self) -> tuple[str, str]:
        bound = ">= " if self.higher else "<= "
        at_best = "" if self.stretch is None else bound + self.shown.format(self.stretch)
        return bound + self.shown.format(self.target), at_best


GOALS = {
    "single/A": Goal(0.60, 0.45),
    "single/C": Goal(1.00, 0.93),
    "foi/ip2p": Goal(1.03, 1.01),
    "throughput/A": Goal(2.0, 2.5, higher=True),
    "throughput/C": Goal(1.20, 1.4, higher=True),
    "p95": Goal(0.75, 0.6),
    "host": Goal(0.5, 0.2),
    "idle": Goal(0.02, 0.01, "{:.0%}"),
    "memory": Goal(1.25, 1.1),
    "neighbours": Goal(0.999, None, "{:.1%}", higher=True),
    "cold ready": Goal(10, 6),
    "cold warm": Goal(30, 15),
}


@dataclass(frozen=True)
class Row:
    """`number` is what `goal` judges."""

    what: str
    value: str
    number: float | None = None
    goal: Goal | None = None


def shown(values: Sequence[float], scale: float = 1.0) -> str:
    """Median (smallest to largest), of how many."""
    of = spread([scale * value for value in values])
    return f"{of['median']:.4g} ({of['min']:.4g} to {of['max']:.4g}; {of['repeats']})"


def ratio(what: str, above: Sequence[float], below: Sequence[float], goal: str | None = None) -> Row:
    """The median of the ratios of what was measured side by side."""
    ratios = [a / b for a, b in zip(above, below, strict=False)]
    return Row(what, shown(ratios), statistics.median(ratios), GOALS[goal] if goal else None)


def roof(record: Record, _: Results) -> list[Row]:
    if not record["flop_per_s"]:
        return []
    what = f"product of two {record['size']}x{record['size']} matrices, {record['dtype']}, TFLOP/s"
    return [Row(what, shown(record["flop_per_s"], 1e-12))]


def single(record: Record, results: Results) -> list[Row]:
    side, seconds = record["side"], record["seconds"]
    size, theirs = f"{side}x{side}", [name for name in BASELINES if name in seconds]
    rows = [Row(f"plain edit, {size}, {name} ({BASELINES[name]}), s", shown(seconds[name])) for name in theirs]
    for execution in [name.removesuffix(" ip2p") for name in seconds if name.endswith(" ip2p")]:
        own, foi = seconds[f"{execution} ip2p"], seconds.get(f"{execution} foi")
        rows.append(Row(f"plain edit, {size}, ours {execution}, s", shown(own)))
        goals = {name: f"single/{name}" if results.legs.get("single") is record else None for name in BASELINES}
        rows += [ratio(f"... against {name}", own, seconds[name], goals[name]) for name in theirs]
        if rates := results.legs.get("roof", {}).get("flop_per_s"):
            flop = edit_flop(results.legs["roof"]["flop"][str(side)], results.all["settings"]["steps"])
            least = flop / statistics.median(rates)
            rows.append(Row(f"... against its floor of {least:.4g} s ({flop / 1e12:.4g} TFLOP)", shown(own, 1 / least)))
        if foi:
            rows += [Row(f"FoI edit, {size}, ours {execution}, s", shown(foi)), ratio("... against plain", foi, own)]
    return rows


def step(record: Record, _: Results) -> list[Row]:
    rows = [Row(f"step of {name}, ms", shown(seconds, 1000)) for name, seconds in record["seconds"].items()]
    for together in (1, 4):
        foi, plain = (record["seconds"].get(f"{method}, {together} together") for method in ("foi", "ip2p"))
        if foi and plain:
            rows.append(ratio(f"FoI step against plain step, {together} together", foi, plain, "foi/ip2p"))
    return rows


def throughput(record: Record, _: Results) -> list[Row]:
    seconds = record["seconds"]
    rows = [Row(f"plain edits/s, {_who(name)}", shown([1 / one for one in of])) for name, of in seconds.items()]
    most = f"{max(TOGETHER)} together"
    for name in BASELINES:
        if name in seconds and most in seconds:
            rows.append(ratio(f"edits/s, {most} against {name}", seconds[name], seconds[most], f"throughput/{name}"))
    return rows


def mixed(record: Record, _: Results) -> list[Row]:
    seconds = record["seconds"]
    rows = [Row(f"mixed edits/s, {_who(name)}", shown([1 / one for one in of])) for name, of in seconds.items()]
    if ours := seconds.get("ours, together"):
        others = [name for name in seconds if name != "ours, together"]
        rows += [ratio(f"mixed edits/s, ours together against {name}", seconds[name], ours) for name in others]
    return rows


def _who(name: str) -> str:
    return f"{name} one by one" if name in BASELINES else name


def load(record: Record, _: Results) -> list[Row]:
    both: dict[str, list[list[float]]] = record["latencies"]
    share = record["rate_per_s"] / record["capacity_per_s"]
    at = f"at {record['rate_per_s']:.3g} edits/s ({share:.1f} of C's capacity)"
    rows = []
    for quantile in (50, 95):
        pooled = {name: float(np.percentile(np.concatenate(rounds), quantile)) for name, rounds in both.items()}
        each = [[float(np.percentile(one, quantile)) for one in rounds] for rounds in (both["ours"], both["C"])]
        of_rounds = [a / b for a, b in zip(*each, strict=True)]
        number, count = pooled["ours"] / pooled["C"], sum(map(len, both["C"]))
        rows += [
            Row(f"p{quantile} latency {at}, C first come, first served, s", f"{pooled['C']:.4g}"),
            Row(f"p{quantile} latency {at}, ours, s", f"{pooled['ours']:.4g}"),
            Row(
                f"... p{quantile}, ours against C",
                f"{number:.4g} (rounds {min(of_rounds):.4g} to {max(of_rounds):.4g}; {count} edits)",
                number,
                GOALS["p95"] if quantile == 95 else None,
            ),
        ]
    return rows


def host(record: Record, _: Results) -> list[Row]:
    rows = []
    for name, of in record["calls"].items():
        cpu = 1000 * statistics.median(of["cpu"])
        rows.append(Row(f"call of a step, {name}, ms: thread's CPU time", shown(of["cpu"], 1000), cpu, GOALS["host"]))
        rows.append(Row("... from call to return", shown(of["wall"], 1000)))
    return rows


def idle(record: Record, _: Results) -> list[Row]:
    rows = []
    for name, of in record["traces"].items():
        between, per = of["between"], f"{of['kernels_per_step']} kernels a step, {of['step_ms']:.4g} ms a step"
        rows.append(Row(f"GPU idle between steps, {name}", f"{between:.2%} ({per})", between, GOALS["idle"]))
        rows.append(Row("... and within them, together", f"{of['all']:.2%}"))
    return rows


def memory(record: Record, _: Results) -> list[Row]:
    peak = record["allocated"] - record["before"]
    against = peak / COMPUTED_MEMORY
    return [
        Row("peak memory of 8 FoI edits, GB: tensors", f"{peak / 1e9:.3f}"),
        Row("... reserved by torch", f"{record['reserved'] / 1e9:.3f}"),
        Row(f"... tensors against computed {COMPUTED_MEMORY / 1e9:g} GB", f"{against:.3f}", against, GOALS["memory"]),
    ]


def neighbours(record: Record, _: Results) -> list[Row]:
    rows = []
    for name, shares in record["within_a_level"].items():
        equal = f"{sum(record['equal'][name])} of {len(shares)} to the byte"
        value = f"{min(shares):.3%} at least, {statistics.median(shares):.3%} in the median; {equal}"
        rows.append(Row(f"pixels within a level of the edit alone, {name}", value, min(shares), GOALS["neighbours"]))
    return rows


def cold(record: Record, _: Results) -> list[Row]:
    return [
        Row(f"cold start, {what}, s", shown(seconds), statistics.median(seconds), GOALS[f"cold {what.split()[-1]}"])
        for what, seconds in record["seconds"].items()
    ]
