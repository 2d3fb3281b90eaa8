"""Pictures of a form: what is wrong with one is told as a problem that names its part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from PIL import Image

from jobs import pictures
from service.problems import Problem


def read_picture(file: BinaryIO, max_pixels: int, part: str = "image") -> Image.Image:
    with _told_of(part):
        return pictures.read_picture(file, max_pixels)


def read_mask(file: BinaryIO, size: tuple[int, int], max_pixels: int, part: str) -> Image.Image:
    with _told_of(part):
        return pictures.read_mask(file, size, max_pixels)


def read_alpha(file: BinaryIO, max_pixels: int, part: str) -> Image.Image:
    with _told_of(part):
        return pictures.read_alpha(file, max_pixels)


@contextmanager
def _told_of(part: str) -> Iterator[None]:
    try:
        yield
    except pictures.BadPictureError as error:
        detail = f"{part}: {error}"
        errors = [{"pointer": f"/{part}", "detail": detail}]
        raise Problem(error.kind, detail, errors if error.kind == "invalid-parameter" else ()) from error
