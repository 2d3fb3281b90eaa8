"""Checks what `make demo` wrote, as a stranger would: `python -m demo.verify` exits non-zero and says what is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

OUT = Path(__file__).parent.parent / "out" / "demo"
MOSTLY_CHANGED = 0.5  # share of a mask's pixels that must differ visibly from the input
VISIBLE = 12  # of 255


def problems(folder: Path) -> list[str]:
    """Everything that is wrong with a demo's output; empty if it is as promised."""
    found = []
    record = json.loads((folder / "summary.json").read_text())
    if record["status"] != "succeeded":
        found.append(f"status is {record['status']}, not succeeded")
    before, after = (np.asarray(Image.open(folder / name).convert("RGB"), int) for name in ("input.png", "result.png"))
    if before.shape != after.shape:
        return [*found, f"the result is {after.shape}, the input {before.shape}"]
    difference = np.abs(after - before).max(axis=2)
    masks = []
    for name in ("mask-1.png", "mask-2.png"):
        mask = np.asarray(Image.open(folder / name).convert("L")) > 127
        masks.append(mask)
        if mask.shape != difference.shape:
            return [*found, f"{name} is {mask.shape}, the input {difference.shape}"]
        if not mask.any():
            found.append(f"{name} is empty")
        elif (difference[mask] > VISIBLE).mean() < MOSTLY_CHANGED:
            found.append(f"inside {name} only {(difference[mask] > VISIBLE).mean():.0%} of the pixels changed visibly")
    outside = ~(masks[0] | masks[1])
    if not outside.any():
        found.append("the masks cover the whole picture")
    elif difference[outside].max() > 0:
        found.append(f"outside the masks the picture changed by up to {difference[outside].max()} of 255")
    if not (folder / "sheet.png").is_file():
        found.append("there is no sheet.png")
    return found


def main() -> None:
    if found := problems(OUT):
        sys.exit("\n".join(found))
    print("demo output: succeeded, sizes equal, both masks found, changed inside, not one byte outside")


if __name__ == "__main__":
    main()
