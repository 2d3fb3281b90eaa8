"""Addresses that callers give: the picture at one is fetched with bounded time, size and redirects; one to be told of
an edit's end is checked. Public ones only."""

from __future__ import annotations

import asyncio
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

import httpx
from starlette.datastructures import UploadFile

from jobs.outgoing import ForbiddenAddress, check_url, explain, open_client
from jobs.settings import Settings
from service.problems import Problem

TOTAL_S = 10
MAX_REDIRECTS = 3
IN_MEMORY_BYTES = 2**20
_HEADERS = {"Accept": "image/png, image/jpeg, image/webp", "Accept-Encoding": "identity"}


async def fetch_image(url: str, settings: Settings) -> UploadFile:
    """The bytes at `url` as if they had been sent, to be closed by the caller. Raises the Problem that says why not."""
    try:
        check_url(url, allow_private=settings.allow_private_urls)
    except ForbiddenAddress as error:
        raise _problem(str(error)) from None
    client = open_client(TOTAL_S, allow_private=settings.allow_private_urls)
    try:
        async with asyncio.timeout(TOTAL_S), client:
            return await _follow(client, url, settings)
    except (ForbiddenAddress, httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        raise _problem(explain(error, TOTAL_S)) from None


def check_webhook_url(url: str, settings: Settings) -> None:
    """Raises the Problem for an address that could never be told anything."""
    try:
        check_url(url, allow_private=settings.allow_private_urls)
    except ForbiddenAddress as error:
        detail = f"webhook_url: {error}"
        raise Problem("webhook-url-forbidden", detail, [{"pointer": "/webhook_url", "detail": detail}]) from None


async def _follow(client: httpx.AsyncClient, url: str, settings: Settings) -> UploadFile:
    """Bodies of redirects are not read, which httpx would do if it followed them itself."""
    request = client.build_request("GET", url, headers=_HEADERS)
    for _ in range(MAX_REDIRECTS + 1):
        response = await client.send(request, stream=True)
        try:
            if response.next_request is None:
                return await _read(response, settings.max_body_bytes)
            request = response.next_request
            check_url(str(request.url), allow_private=settings.allow_private_urls)
        finally:
            await response.aclose()
    raise _problem(f"redirects more than {MAX_REDIRECTS} times")


async def _read(response: httpx.Response, limit: int) -> UploadFile:
    if response.status_code != 200:
        raise _problem(f"answers with status {response.status_code} instead of 200")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise _problem("answers with a compressed body, which was not asked for")
    upload = UploadFile(cast(BinaryIO, SpooledTemporaryFile(IN_MEMORY_BYTES)), size=0)  # noqa: SIM115
    try:
        async for chunk in response.aiter_raw():
            if response.num_bytes_downloaded > limit:
                raise _problem(f"has more than {limit} bytes")
            await upload.write(chunk)
        await upload.seek(0)
    except BaseException:
        upload.file.close()
        raise
    return upload


def _problem(reason: str) -> Problem:
    detail = f"image_url: {reason}"
    return Problem("invalid-parameter", detail, [{"pointer": "/image_url", "detail": detail}])
