"""Pictures of a form: each is read when the memory that it takes is free, and what is wrong with one is told as a
problem that names its part."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, TypeVar, cast

from anyio import CapacityLimiter, to_thread
from PIL import Image
from starlette.datastructures import UploadFile

from jobs import pictures
from service.problems import Problem

MEMORY_BYTES = 480_000_000
"""For the pictures that are read at one time: the largest of the default FOI_MAX_PIXELS alone. Where a larger one is
allowed it is read alone, and takes more."""
DECODERS = 4
IN_MEMORY_BYTES = 2**18

T = TypeVar("T")


class Reader:
    """Reads the pictures of all requests, in the order they come, several at once where their memory allows it."""

    def __init__(self, max_pixels: int, memory: int = MEMORY_BYTES) -> None:
        self.max_pixels = max_pixels
        self._all = self._free = memory
        self._turn, self._freed = asyncio.Lock(), asyncio.Event()
        self._threads = CapacityLimiter(DECODERS)

    async def check(self, file: UploadFile, part: str = "image") -> tuple[int, int]:
        """The size of a picture that can be decoded, upright. Raises the Problem."""
        memory = await self._memory_of(file.file, part)
        return await self.read(memory, partial(told_of, part, pictures.check_picture, file.file, self.max_pixels))

    async def mask(self, file: UploadFile, size: tuple[int, int], part: str) -> UploadFile:
        """As a PNG of one bit a pixel, of the picture's `size`; to be closed. Raises the Problem."""
        return await self._converted(file, part, lambda: pictures.read_mask(file.file, size, self.max_pixels))

    async def transparent(self, file: UploadFile, part: str) -> UploadFile:
        """White where it is fully transparent: a PNG of one bit a pixel, to be closed. Raises the Problem."""

        def read() -> Image.Image:
            found = pictures.read_transparent(file.file, self.max_pixels)
            if not found.getbbox():
                raise pictures.BadPictureError(
                    "invalid-parameter", "no pixel of it is fully transparent (alpha 0), so that nothing might change"
                )
            return found

        return await self._converted(file, part, read)

    async def as_png(self, file: UploadFile, max_pixels: int) -> UploadFile:
        """The picture as the model is shown it; to be closed. Raises the Problem."""
        return await self._converted(file, "image", lambda: pictures.read_picture(file.file, max_pixels), max_pixels)

    async def read(self, memory: int, work: Callable[[], T]) -> T:
        """What `work` returns, done in a thread when so many bytes are free."""
        async with self._share(memory):
            return await to_thread.run_sync(work, limiter=self._threads)

    async def _memory_of(self, file: BinaryIO, part: str, max_pixels: int | None = None) -> int:
        """A header can be as large as its file, and is held twice while it is read."""
        length = file.seek(0, 2)
        file.seek(0)
        read = partial(told_of, part, pictures.read_memory, file, max_pixels or self.max_pixels)
        return 2 * length + await self.read(2 * length, read)

    async def _converted(
        self, file: UploadFile, part: str, read: Callable[[], Image.Image], max_pixels: int | None = None
    ) -> UploadFile:
        def write() -> UploadFile:
            image = told_of(part, read)
            written = cast(BinaryIO, SpooledTemporaryFile(IN_MEMORY_BYTES))  # noqa: SIM115
            pictures.write_png(image, written)
            size = written.tell()
            written.seek(0)
            return UploadFile(written, size=size)

        return await self.read(await self._memory_of(file.file, part, max_pixels), write)

    @asynccontextmanager
    async def _share(self, memory: int) -> AsyncIterator[None]:
        """First come, first served: many small pictures do not keep a large one waiting for ever."""
        memory = min(memory, self._all)
        async with self._turn:
            while self._free < memory:
                self._freed.clear()
                await self._freed.wait()
            self._free -= memory
        try:
            yield
        finally:
            self._free += memory
            self._freed.set()


def told_of(part: str, read: Callable[..., T], *arguments: object) -> T:
    """What `read` returns. A picture that cannot be used is told as the Problem that names its part."""
    try:
        return read(*arguments)
    except pictures.BadPictureError as error:
        detail = f"{part}: {error}"
        errors = [{"pointer": f"/{part}", "detail": detail}]
        raise Problem(error.kind, detail, errors if error.kind == "invalid-parameter" else ()) from error
