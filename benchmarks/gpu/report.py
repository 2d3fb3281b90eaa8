"""The table: every figure beside its goal."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.gpu import rows
from benchmarks.gpu.results import Results
from benchmarks.gpu.rows import Record, Row

ROWS: dict[str, tuple[str, Callable[[Record, Results], list[Row]]]] = {
    "roof": ("the device's roof", rows.roof),
    "single": ("a single edit", rows.single),
    "step": ("a FoI step against a plain step", rows.step),
    "throughput": ("throughput", rows.throughput),
    "mixed": ("mixed settings", rows.mixed),
    "load": ("latency under load", rows.load),
    "host": ("host time of a step", rows.host),
    "idle": ("GPU idle between steps", rows.idle),
    "neighbours": ("an edit alone and among others", rows.neighbours),
    "memory": ("peak memory of 8 edits", rows.memory),
    "single-large": ("a single larger edit", rows.single),
    "cold": ("cold start", rows.cold),
}


def rows_of(leg: str, results: Results) -> list[Row]:
    """The leg's figures, or why there are none."""
    title, make = ROWS[leg]
    record = results.legs.get(leg)
    if record is None:
        return [Row(title, f"not measured: `python -m benchmarks.gpu --legs {leg}`")]
    if "skipped" in record:
        return [Row(title, record["skipped"])]
    if "error" in record:
        return [Row(title, f"failed: {record['error']}")]
    left_out = [Row(f"{title}: {name}", f"failed: {why}") for name, why in record.get("failed", {}).items()]
    return [*make(record, results), *left_out]


def table(results: Results, *, judged: bool) -> str:
    """`judged` False: the run only checks that the script works."""
    lines = ["| figure | measured | goal | stretch | |", "| :--- | :--- | :--- | :--- | :--- |"]
    for leg in ROWS:
        for row in rows_of(leg, results):
            goal, stretch = row.goal.cells() if row.goal else ("", "")
            verdict = row.goal.verdict(row.number) if judged and row.goal and row.number is not None else ""
            what = row.what.replace("|", "\\|")
            lines.append(f"| {what} | {row.value.replace('|', '/')} | {goal} | {stretch} | {verdict} |")
    head = [
        "; ".join(f"{name}: {value}" for name, value in results.all[part].items()) + "."
        for part in ("machine", "settings")
    ]
    executions = {record["execution"] for record in results.legs.values() if "execution" in record}
    told = "" if judged else "**A check of the script with a tiny model: these figures mean nothing.**\n\n"
    return f"""# The engine on a GPU

{told}{head[0]} {head[1]}

{chr(10).join(lines)}

Median (smallest to largest; repeats). Ratios are of what was measured side by side in one round. Our engine's execution
in the legs after the single edit: {", ".join(sorted(executions)) or "none yet"}. An edit is from the picture to the
edited picture. The GPU's pauses are from the kernels' times in a trace of torch.profiler, which slows the host. A call
of a step is timed on an idle device and not waited for. A cold start is from the start of a process until the engine
can serve (ready) and until a FoI edit runs as recorded or compiled (warm), with the caches that earlier legs have left.
"""
