"""Do nouns find what they name? Cross-attention maps of a model in training, against the true masks of the scene.

`python -m demo.grounding out/two-stage/small/text-to-image/log.jsonl` prints the tables of a training.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from demo.data import CELL
from demo.measures import average_precision
from demo.models import Networks, build_scheduler
from demo.train_unet import noised, record_cross_attention
from foi_core import masks

TIMESTEPS = (900, 600, 300)
THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 20))
METRICS = {
    "auprc": "mean area under the precision-recall curve",
    "iou": "median IoU at the best tau of the plainly normalised map",
    "paper": "median IoU at the paper's gamma = 3 and tau in [0.4, 0.7]",
}
PAPER_THRESHOLDS = (0.4, 0.5, 0.6, 0.7)  # the range that the paper draws tau from


@dataclass(frozen=True)
class Question:
    """One noun of one text: row of the batch, the noun's token columns, and the cells of what it names."""

    row: int
    columns: list[int]
    truth: Tensor  # (16, 16) bool
    group: str  # "object", "sky" or "ground"


@dataclass(frozen=True)
class Probe:
    """Held-out pictures with a text each: pictures are noised, and the nouns of the texts are asked where they look.

    `latents` (n, 4, 16, 16) and `condition`, the image channels or None, are unscaled; `ids` is (n, tokens).
    """

    latents: Tensor
    condition: Tensor | None
    ids: Tensor
    questions: list[Question]
    scaling: float

    @torch.no_grad()
    def __call__(self, networks: Networks) -> dict[str, float]:
        device, n, side = self.latents.device, len(self.latents), self.latents.shape[-1]
        alphas = build_scheduler().alphas_cumprod.to(device)
        noise = torch.randn(self.latents.shape, generator=torch.Generator().manual_seed(0)).to(device)
        recorders = record_cross_attention(networks.unet)
        text = networks.text_encoder(self.ids).last_hidden_state

        def attention(t: int) -> Tensor:
            times = torch.full((n,), t, device=device)
            noisy, _ = noised(self.latents, self.latents, noise, alphas[times], self.scaling)
            seen = noisy if self.condition is None else torch.cat([noisy, self.condition], 1)
            networks.unet(seen, times, text)
            return mean_attention([r.probabilities for r in recorders if r.probabilities is not None], n, side).cpu()

        return figures(self.questions, attention)


def cells(mask: np.ndarray) -> Tensor:
    """The cells of which a mask (128, 128) covers more than half, (16, 16) bool."""
    n = len(mask) // CELL
    return torch.from_numpy(mask.reshape(n, CELL, n, CELL).mean((1, 3)) > 0.5)


def figures(questions: list[Question], attention: Callable[[int], Tensor]) -> dict[str, float]:
    """For each t and group: mean AUPRC, median IoU at the best tau, and at the paper's gamma and taus.

    `attention(t)` gives each row's cross-attention (n, 16, 16, tokens) at timestep t.
    """
    found: dict[str, float] = {}
    for t in TIMESTEPS:
        seen = attention(t)
        for group in sorted({q.group for q in questions}):
            of_group = [q for q in questions if q.group == group]
            maps = [masks.smooth(masks.keyword_map(seen[q.row], q.columns)) for q in of_group]
            truths = [q.truth for q in of_group]
            plain = torch.stack([masks.normalise(m) for m in maps])
            squared = torch.stack([masks.enhance(m) for m in maps])
            each = [median_iou(plain, truths, (tau,)) for tau in THRESHOLDS]
            name = f"{group} t={t}"
            found[f"{name} auprc"] = float(
                np.mean([average_precision(m.numpy(), x.numpy()) for m, x in zip(plain, truths, strict=True)])
            )
            found[f"{name} iou"] = max(each)
            found[f"{name} tau"] = THRESHOLDS[each.index(max(each))]
            found[f"{name} paper"] = median_iou(squared, truths, PAPER_THRESHOLDS)
    return found


def median_iou(maps: Tensor, truths: list[Tensor], taus: tuple[float, ...]) -> float:
    """Over all maps (n, h, w) and thresholds."""
    truth = torch.stack(truths)
    found = torch.stack([maps >= tau for tau in taus])
    union = (found | truth).sum((2, 3))
    return float(((found & truth).sum((2, 3)) / union).median())


def mean_attention(probabilities: list[Tensor], rows: int, side: int) -> Tensor:
    """Layers' probabilities (rows * heads, queries, tokens) -> (rows, side, side, tokens), of the layers of that side,
    averaged over layers and heads."""
    level = [p for p in probabilities if math.isqrt(p.shape[1]) == side]
    averaged = torch.stack([p.float().unflatten(0, (rows, -1)).mean(1) for p in level]).mean(0)
    return averaged.reshape(rows, side, side, -1)


def table(log: Path, metric: str) -> str:
    """A training's log.jsonl as a Markdown table of one metric ("iou", "auprc" or "paper"), a row a report."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    names = [name for name in lines[0] if name.endswith(f" {metric}")]
    head = ["samples", "loss", *(name.removesuffix(f" {metric}") for name in names)]
    rows = [[str(line["samples"]), f"{line['loss']:.3f}", *(f"{line[n]:.2f}" for n in names)] for line in lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def main() -> None:
    for log in map(Path, sys.argv[1:]):
        for metric, says in METRICS.items():
            print(f"{log.parent.name}: {says}\n\n{table(log, metric)}\n")


if __name__ == "__main__":
    main()
