"""Made-up records, with everything that `run.measure` and `results.about` put into real ones."""

from __future__ import annotations

from typing import Any


def record(row: str, case: int, kinds: str, errors: list[float | None], **other: Any) -> dict[str, Any]:
    """`kinds` as one text, "recolour sky"; `psnr` is everywhere the same unless `other` says otherwise."""
    psnr = other.pop("psnr", 30.0)
    plain: dict[str, Any] = {
        "row": row,
        "case": case,
        "sample": 0,
        "kinds": kinds.split(),
        "errors": errors,
        "errors_free": errors,
        **{f"outside{part}": {"mae": 1.0, "psnr": psnr, "max": 9.0} for part in ("", "_free", "_vae", "_far")},
        "ring": 2.0,
        "leakage": 0.125,
        "unet_rows": 240,
        "size": None,
        "has_twin": False,
    }
    return plain | other
