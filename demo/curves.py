"""The training's curves: `python -m demo.curves` draws docs/training.png from demo/model/log.jsonl, and the ablation
without attention supervision (`demo.train --attention-weight 0`) from demo/model/ablation.jsonl beside it."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parent
PANELS = {
    "denoising": "denoising loss (training)",
    "attention": "keyword attention's cross-entropy\nwith the true region (nats)",
    "error_inside": "error inside the region at t = 800,\ncopying the input = 1 (held out)",
}


COLOURS = ("#2a5db0", "#c2571a")


def draw(logs: dict[str, Path], picture: Path) -> None:
    """One panel a figure, over thousands of samples; a line for each log."""
    figure, axes = plt.subplots(1, len(PANELS), figsize=(4 * len(PANELS), 3.2), layout="constrained")
    for axis, (name, title) in zip(axes, PANELS.items(), strict=True):
        for (label, log), colour in zip(logs.items(), COLOURS, strict=True):
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            samples = [line["samples"] / 1000 for line in lines]
            axis.plot(samples, [line[name] for line in lines], color=colour, label=label)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("thousand samples")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[-1].legend(frameon=False)
    figure.savefig(picture, dpi=100)


if __name__ == "__main__":
    model = ROOT / "model"
    logs = {"as bundled": model / "log.jsonl", "without attention supervision": model / "ablation.jsonl"}
    draw(logs, ROOT.parent / "docs" / "training.png")
