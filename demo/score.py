"""How often an edit of an unseen scene succeeds, by a pixel criterion: `python -m demo.score`.

Success: over the pixels that the true edit changes, the result is on average less than half as far from the true target
as the input was (mean absolute error, RGB). Preservation: PSNR between result and input outside the true region; note
that FoI pastes the input back there by default, and `--settings '{"preserve_outside_mask": false}'` compares without.
Scenes come from seeds that neither training nor tuning saw (`--tuning` uses the tuning seeds instead).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from demo.data import REPORTED_SEED, TUNING_SEED
from demo.edits import Edit, random_edit
from demo.scenes import Scene, changed_region, random_scene, render
from foi_core import EditSpec, SubInstruction
from foi_core.engine import Engine

METHODS = ("ip2p", "foi", "foi-true-mask")
SUCCESS = 0.5


@dataclass(frozen=True)
class Case:
    """One unseen scene and one edit of it, with its ground truth."""

    seed: int
    scene: Scene
    edit: Edit

    @property
    def source(self) -> np.ndarray:
        return render(self.scene)

    @property
    def target(self) -> np.ndarray:
        return render(self.edit.apply(self.scene))

    @property
    def region(self) -> np.ndarray:
        return self.edit.region(self.scene)


@dataclass(frozen=True)
class Score:
    kind: str
    method: str
    error: float
    psnr_outside: float | None
    iou: float | None

    @property
    def success(self) -> bool:
        return self.error < SUCCESS


def cases(first_seed: int, count: int) -> Iterator[Case]:
    """`count` scenes, one edit each, of the kinds and shares that people ask for (no edit that changes nothing)."""
    seed = first_seed
    while count:
        rng = np.random.default_rng([13, seed])
        scene = random_scene(rng)
        edit = random_edit(rng, scene)
        if edit.kind != "nothing":
            yield Case(seed, scene, edit)
            count -= 1
        seed += 1


def score(case: Case, method: str, result: np.ndarray, mask: np.ndarray | None) -> Score:
    source, target, region = case.source.astype(float), case.target.astype(float), case.region
    # Not the whole region: where a ball becomes a box of its colour, the VAE's own blur would outweigh the edit.
    changed = changed_region(case.source, case.target)
    error = np.abs(result - target)[changed].mean() / np.abs(source - target)[changed].mean()
    outside = ~region
    psnr = None
    if outside.any():
        mse = ((result - source)[outside] ** 2).mean()
        psnr = float(10 * np.log10(255**2 / max(mse, 1e-2)))
    iou = float((mask & region).sum() / (mask | region).sum()) if mask is not None else None
    return Score(case.edit.kind, method, float(error), psnr, iou)


def run(engine: Engine, case: Case, method: str, **settings: object) -> tuple[Score, Image.Image]:
    """One edit of one case by one of METHODS, at the model's defaults but for `settings`."""
    truth = Image.fromarray(case.region.astype(np.uint8) * 255) if method == "foi-true-mask" else None
    part = SubInstruction(case.edit.instruction, mask=truth)
    spec = EditSpec((part,), method="ip2p" if method == "ip2p" else "foi", seed=case.seed, **settings)  # type: ignore[arg-type]
    result = engine.edit(Image.fromarray(case.source), spec)
    mask = np.asarray(result.masks[0]) > 0 if result.masks else None
    return score(case, method, np.asarray(result.image, dtype=float), mask), result.image


def table(scores: list[Score]) -> str:
    """Markdown: successes by kind and in all, median PSNR outside, median IoU."""
    kinds = sorted({s.kind for s in scores})
    lines = [
        f"| method | successes | {' | '.join(kinds)} | PSNR outside, dB | mask IoU |",
        "|---" * (len(kinds) + 4) + "|",
    ]
    for method in dict.fromkeys(s.method for s in scores):
        mine = [s for s in scores if s.method == method]
        by_kind = [f"{sum(s.success for s in mine if s.kind == k)}/{sum(s.kind == k for s in mine)}" for k in kinds]
        psnr = np.median([s.psnr_outside for s in mine if s.psnr_outside is not None])
        ious = [s.iou for s in mine if s.iou is not None]
        iou = f"{np.median(ious):.2f}" if ious else "-"
        lines.append(
            f"| {method} | {sum(s.success for s in mine)}/{len(mine)} | {' | '.join(by_kind)} | {psnr:.1f} | {iou} |"
        )
    return "\n".join(lines)


def _settings(text: str) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(text).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--model", default="demo")
    parser.add_argument(
        "--tuning", action="store_true", help="the scenes for choosing settings, not those for reporting"
    )
    parser.add_argument(
        "--settings", type=_settings, default={}, help="EditSpec fields as JSON, e.g. '{\"guidance_scale\": 3}'"
    )
    parser.add_argument(
        "--pictures", type=Path, help="also write input, target and results of every scene side by side"
    )
    args = parser.parse_args()

    engine = Engine.load(args.model)
    scores, rows = [], []
    for i, case in enumerate(cases(TUNING_SEED if args.tuning else REPORTED_SEED, args.scenes)):
        results = [run(engine, case, method, **args.settings) for method in args.methods]
        scores += [s for s, _ in results]
        rows.append(np.concatenate([case.source, case.target, *(np.asarray(image) for _, image in results)], axis=1))
        errors = "  ".join(f"{s.method} {s.error:.2f}{' ok' if s.success else ''}" for s, _ in results)
        print(f"{i + 1}/{args.scenes}  {case.edit.instruction!r}: {errors}", flush=True)
    print(f"\n{engine.defaults}\n{table(scores)}")
    if args.pictures:
        Image.fromarray(np.concatenate(rows)).save(args.pictures)


if __name__ == "__main__":
    main()
