"""What a user does on the page, in words."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import Download, Page, expect

SAMPLES = {"meadow": 0, "winter": 1, "lake": 2, "beach": 3}
QUICK = "4"
"""Steps, where the picture does not matter."""


def choose_sample(page: Page, name: str = "meadow") -> None:
    page.locator("#samples button").nth(SAMPLES[name]).click()
    expect(page.locator("#frames")).to_be_visible()
    expect(page.locator(".part").first).to_be_visible()


def set_number(page: Page, label: str, value: str) -> None:
    if not page.get_by_label(label).is_visible():
        page.get_by_text("Settings", exact=True).click()
    page.get_by_label(label).fill(value)


def show_regions(page: Page) -> None:
    page.get_by_role("button", name="Show regions").click()
    expect(page.locator(".part .region").first).to_contain_text(re.compile("Region found|Your mask"))
    expect(page.locator("#progress")).to_be_hidden()


def edit(page: Page) -> None:
    page.get_by_role("button", name="Edit", exact=True).click()
    expect(page.locator("#result")).to_be_visible()
    expect(page.locator("#progress")).to_be_hidden()


def newest(page: Page, service: str) -> dict[str, Any]:
    """The record of the edit that this browser has asked for last."""
    edit_id = page.evaluate("JSON.parse(localStorage.getItem('foi.history'))[0].id")
    record: dict[str, Any] = httpx.get(f"{service}/v1/edits/{edit_id}").raise_for_status().json()
    return record


def file_of(service: str, record: dict[str, Any], name: str) -> np.ndarray:
    answer = httpx.get(f"{service}{record['urls']['self']}/files/{name}").raise_for_status()
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def downloaded(download: Download) -> bytes:
    return Path(download.path()).read_bytes()


def tinted_pixels(page: Page) -> int:
    """Pixels of the first viewer's overlay that are not clear."""
    count = """canvas => {
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
        copy.drawImage(canvas, 0, 0);
        const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
        return data.filter((value, i) => i % 4 === 3 && value > 0).length;
    }"""
    page.evaluate("new Promise(requestAnimationFrame)")
    page.evaluate("new Promise(requestAnimationFrame)")
    return int(page.locator("canvas.overlay").first.evaluate(count))


def paint_stroke(page: Page) -> None:
    """From a quarter of the picture to its half."""
    box = page.locator("canvas.overlay").first.bounding_box()
    assert box is not None
    x, y, side = box["x"], box["y"], box["width"]
    page.mouse.move(x + side / 4, y + side / 4)
    page.mouse.down()
    page.mouse.move(x + side / 2, y + side / 2, steps=5)
    page.mouse.up()
