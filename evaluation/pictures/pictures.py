"""Pictures from files: upright, opaque, RGB; masks black and white."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps

from evaluation.pictures.problems import BadLine
from foi_core.images import picture_mask

# What PIL raises for a file that is no whole picture: UnidentifiedImageError is an OSError, and damaged files of some
# kinds raise the others.
_NO_PICTURE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


def open_picture(path: Path) -> Image.Image:
    """RGB, turned as EXIF says, transparent parts on white. Raises BadLine for what is missing or no picture."""
    picture = _open(path)
    if picture.mode.startswith(("I", "F")):  # PIL would cut these off at 255
        raise BadLine(f"{path.name} has more than 8 bits a pixel: save it with 8 bits a channel")
    if picture.has_transparency_data:
        opaque = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque)
    return picture.convert("RGB")


def open_mask(path: Path, size: tuple[int, int]) -> Image.Image:
    """ "L", 255 where the file is lighter than middle grey, else 0. Raises BadLine, also where it has not `size`."""
    mask = picture_mask(_open(path))
    if mask.size != size:
        raise BadLine(f"{path.name} is {_shown(mask.size)} pixels, the picture {_shown(size)}: make them the same size")
    if mask.getbbox() is None:
        raise BadLine(f"{path.name} is black everywhere: the region must be white (255, not 1)")
    return mask


def open_target(path: Path, size: tuple[int, int]) -> Image.Image:
    """A picture that must have the size of the one to edit."""
    target = open_picture(path)
    if target.size != size:
        raise BadLine(f"{path.name} is {_shown(target.size)} pixels, the picture {_shown(size)}: make them the same")
    return target


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            picture.load()
            return ImageOps.exif_transpose(picture)
    except FileNotFoundError as error:
        raise BadLine(f"there is no file {path}") from error
    except _NO_PICTURE as error:
        raise BadLine(f"{path} is not a whole picture ({error}): replace it") from error


def _shown(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
