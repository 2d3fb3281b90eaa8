"""Do masks survive another checkpoint's maps? `python -m evaluation.scenes.bent`.

A checkpoint whose attention was trained otherwise has other maps of the same things: flatter or steeper, over a
background, noisier, coarser. Here the demo model's own maps are bent so, and each way to cut them is judged on each.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from demo.data import REPORTED_SEED, TUNING_SEED
from evaluation.ideas import edge_level
from evaluation.ideas.upsampled import otsu
from evaluation.scenes.cases import Case, cases
from evaluation.scenes.metrics import iou
from evaluation.scenes.run import seed_of
from foi_core import EditSpec, SubInstruction, choices, masks
from foi_core.engine import Engine
from foi_core.mask_sources import GuidedAttention, Seen
from foi_core.recipe import Recipe

RESULTS = Path(__file__).parents[1] / "results" / "bent.md"
FIXED = (0.15, 0.25, 0.4, 0.6, 0.8, 0.9)
PAPER_TAU = 0.55
FULL, SMALL = 0.9, 1 / 3


@dataclass(frozen=True, eq=False)
class Bent:
    """A keyword's map, bent: `soft` (h, w) in [0, 1]; the scene's picture as its guide, (3, H, W); its edges (H, W)."""

    soft: Tensor
    guide: Tensor
    strength: Tensor

    @cached_property
    def fine(self) -> Tensor:
        return edge_level.guided(self.soft, self.guide)


Cut = Callable[[Bent], Tensor]
"""The mask, (H, W) bool at the guide's resolution."""


def fixed(tau: float) -> Cut:
    """As `GuidedAttention` cuts: where the map stays below tau, tau is a share of its peak."""

    def cut(bent: Bent) -> Tensor:
        peak = float(bent.fine.amax())
        return bent.fine >= (tau if peak >= tau else tau * peak)

    return cut


def paper(bent: Bent) -> Tensor:
    """Eq. 2 with the middle of the paper's range."""
    found = masks.binarise(masks.enhance(masks.smooth(bent.soft)), PAPER_TAU)
    return masks.interpolate(found, (bent.guide.shape[1], bent.guide.shape[2])) > 0


def by_otsu(bent: Bent) -> Tensor:
    return bent.fine >= otsu(bent.fine.numpy())


def by_color(bent: Bent) -> Tensor:
    """The level that parts the colors around its border best (Chan and Vese 2001, in a band): mean color inside against
    outside, over what remains of variance."""
    fine, guide = F.avg_pool2d(bent.fine[None], 2)[0], F.avg_pool2d(bent.guide, 2)
    cuts = edge_level.candidates(fine)
    inside = fine >= cuts[:, None, None]
    near = edge_level.near_to(edge_level.border_of(inside), choices.GUIDE_CELL // 2)
    parts = []
    for where in (near & inside, near & ~inside):
        share = where.flatten(1).float() / where.flatten(1).sum(dim=1, keepdim=True).clamp_min(1)
        mean = share @ guide.flatten(1).T
        parts.append((mean, share @ guide.flatten(1).square().T - mean.square()))
    (mean_in, var_in), (mean_out, var_out) = parts
    score = (mean_in - mean_out).square().sum(dim=1) / ((var_in + var_out).sum(dim=1) + 1e-3)
    return bent.fine >= float(cuts[score.argmax()])


def by_edges(fall_weight: float) -> Cut:
    return lambda bent: bent.fine >= edge_level.best_level(bent.fine, bent.strength, choices.GUIDE_CELL, fall_weight)


CUTS: dict[str, Cut] = {
    "paper": paper,
    **{f"tau {tau:g}": fixed(tau) for tau in FIXED},
    "Otsu": by_otsu,
    "colors": by_color,
    "edges alone": by_edges(0.0),
    "edges, fall": by_edges(edge_level.FALL_WEIGHT),
}


def bends(soft: Tensor, rng: np.random.Generator) -> Iterator[tuple[str, Tensor]]:
    """The map as it is, and as others might have it; each in [0, 1] again."""
    height, width = soft.shape
    rough = torch.from_numpy(rng.random((1, 1, 3, 3)).astype(np.float32))
    uneven = masks.normalise(F.interpolate(rough, size=(height, width), mode="bicubic")[0, 0])
    yield "as it is", soft
    for power in (0.25, 0.5, 2.0, 4.0):
        yield f"x^{power:g}", soft**power
    for share in (0.2, 0.3, 0.4, 0.6):
        yield f"uneven background {share:g}", masks.normalise((1 - share) * soft + share * uneven)
    for level in (0.3, 0.6):  # a corner that is lower keeps normalization from taking it away again
        floor = torch.maximum(soft, level * (0.8 + 0.2 * uneven))
        floor[-1, :2] = 0
        yield f"plateau {level:g}", floor
    yield "x^0.5, background 0.3", masks.normalise(0.7 * soft**0.5 + 0.3 * uneven)
    yield "ramp 0.4", masks.normalise(0.6 * soft + 0.4 * torch.linspace(0, 1, height)[:, None])
    for sigma in (0.1, 0.2):
        noise = torch.from_numpy(rng.standard_normal((height, width)).astype(np.float32))
        yield f"noise {sigma:g}", masks.normalise(soft + sigma * noise)
    yield "half the cells", masks.normalise(F.avg_pool2d(soft[None], 2)[0])


@dataclass(frozen=True)
class _Recording(GuidedAttention):
    """Keeps every keyword's map as it was normalized."""

    kept: tuple[list[Tensor], ...] = ([],)

    def soft_map(self, seen: Seen, tokens: tuple[int, ...]) -> Tensor:
        soft = super().soft_map(seen, tokens)
        self.kept[0].append(soft.cpu())
        return soft


def maps(engine: Engine, case: Case) -> list[Tensor]:
    """Each edit's map, (h, w) in [0, 1], as the mask step has it."""
    source = _Recording(kept=([],))
    parts = tuple(SubInstruction(edit.instruction, edit.keyword) for edit in case.edits)
    spec = EditSpec(parts, method="masks", seed=seed_of(case, 0))
    engine.step([engine.admit(Image.fromarray(case.source), spec, Recipe(mask_source=source))])
    return source.kept[0]


def measured(engine: Engine, of: list[Case]) -> dict[tuple[str, str], np.ndarray]:
    """For every bend and cut: (edits, 3) of IoU, share of the picture, true share."""
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for case in tqdm(of, unit="scene"):
        for number, (soft, truth) in enumerate(zip(maps(engine, case), case.regions, strict=True)):
            rng = np.random.default_rng([case.seed, number])
            for name, bent in bends(soft, rng):
                guide = edge_level.guide_of(Image.fromarray(case.source), (bent.shape[0], bent.shape[1]))
                one = Bent(bent, guide, edge_level.edge_strength(guide))
                for cut, way in CUTS.items():
                    mask = _full_size(way(one), truth.shape)
                    found.setdefault((name, cut), []).append((iou(mask, truth), mask.mean(), truth.mean()))
    return {key: np.array(values) for key, values in found.items()}


def _full_size(mask: Tensor, size: tuple[int, ...]) -> np.ndarray:
    scaled = F.interpolate(mask[None, None].float(), size=(size[0], size[1]), mode="nearest-exact")
    return np.asarray(scaled[0, 0] > 0.5)


def table(found: dict[tuple[str, str], np.ndarray]) -> str:
    """Markdown: median IoU, mean share of the picture, and how many small things got the whole picture."""
    names = list(dict.fromkeys(bend for bend, _ in found))
    rows = [f"| map | {' | '.join(CUTS)} | best tau |", "|---" * (len(CUTS) + 2) + "|"]
    for bend in names:
        best = max(float(np.median(found[bend, f"tau {tau:g}"][:, 0])) for tau in FIXED)
        cells = []
        for cut in CUTS:
            overlap, share, truth = found[bend, cut].T
            full = int(((share > FULL) & (truth < SMALL)).sum())
            median = float(np.median(overlap))
            text = f"{median:.2f} / {share.mean():.2f}" + (f" ({full} full)" if full else "")
            cells.append(f"**{text}**" if median >= best - 0.05 and not full else text)
        rows.append(f"| {bend} | {' | '.join(cells)} | {best:.2f} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scenes", type=int, default=100, help="with one edit; a third as many with two")
    parser.add_argument("--tuning", action="store_true", help="the scenes for choosing settings; nothing is written")
    given = parser.parse_args()
    engine = Engine.load(given.model, given.device, safety_checker="off")
    of = cases(TUNING_SEED if given.tuning else REPORTED_SEED, {1: given.scenes, 2: given.scenes // 3})
    found = measured(engine, of)
    edits = len(next(iter(found.values())))
    text = (
        f"Masks from bent maps of {given.model!r}: median IoU / mean share of the picture, over {edits} edits. "
        f"*n* full: edits of less than a third of the picture whose mask is over {FULL:.0%} of it. Bold: within .05 of "
        f"the best fixed tau on that map, and none full. `python -m evaluation.scenes.bent`\n\n{table(found)}"
    )
    print(text)
    if not given.tuning:
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()
