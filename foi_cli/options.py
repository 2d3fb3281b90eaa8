"""The options of `foi edit` and `foi masks`: the API's fields under the names that people type."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from foi_core.spec import RANGES

_PICTURE = typer.Argument(help="The picture (PNG, JPEG or WebP), or - for stdin.")
Image = Annotated[str, _PICTURE]
OptionalImage = Annotated[str | None, _PICTURE]
Texts = Annotated[
    list[str] | None,
    typer.Option(
        "--instruction",
        "-i",
        help="What to change. Once: split into its parts. Repeated: each is one part.",
    ),
]
Keywords = Annotated[
    list[str] | None,
    typer.Option("--keyword", metavar="[N=]WORDS", help="Words of part N that name its region; else they are found."),
]
Intensities = Annotated[
    list[str] | None, typer.Option("--intensity", metavar="[N=]NUMBER", help="How strongly part N acts.")
]
MaskFiles = Annotated[
    list[str] | None,
    typer.Option("--mask", metavar="[N=]FILE", help="Region of part N: the picture's size, white = may change."),
]


def _number(flag: str, field: str, text: str) -> Any:
    low, high = RANGES[field]
    return typer.Option(flag, min=low, max=high, help=text)


Seed = Annotated[int | None, _number("--seed", "seed", "The same seed gives the same picture; else drawn.")]
Steps = Annotated[int | None, _number("--steps", "num_inference_steps", "Denoising steps; else the model's own.")]
Strength = Annotated[float | None, _number("--strength", "strength", "Less keeps more of the picture; else 0.8.")]
GuidanceScale = Annotated[
    float | None, _number("--guidance-scale", "guidance_scale", "How strongly the text acts; else the model's own.")
]
ImageGuidanceScale = Annotated[
    float | None,
    _number("--image-guidance-scale", "image_guidance_scale", "How strongly the picture acts; else the model's own."),
]
Threshold = Annotated[
    str | None,
    typer.Option(
        "--threshold", help="Higher makes smaller regions: 0 to 1, or a range like 0.4-0.7; else the preset's."
    ),
]
Method = Annotated[Literal["foi", "ip2p"] | None, typer.Option("--method", help="ip2p: plain, without regions.")]
Preset = Annotated[
    Literal["default", "paper"] | None, typer.Option("--preset", help="paper: the method to the letter.")
]
Count = Annotated[int | None, typer.Option("-n", "--n", min=1, help="Outputs, of this seed and those after it.")]
Server = Annotated[
    str | None,
    typer.Option(
        "--server", metavar="URL", envvar="FOI_SERVER", help="A running service makes the edit (its key: FOI_API_KEY)."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on stdout.")]
MasksFolder = Annotated[Path | None, typer.Option("--masks", metavar="DIR", help="Folder for the masks.")]


def given(**fields: Any) -> Mapping[str, Any]:
    """Without those that were left out."""
    return {name: value for name, value in fields.items() if value is not None}
