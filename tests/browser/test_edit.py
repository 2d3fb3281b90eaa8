"""The way of an edit on the page, from a sample to the files."""

from __future__ import annotations

import io
import re
import subprocess
from pathlib import Path

import httpx
import numpy as np
from PIL import ExifTags, Image
from playwright.sync_api import Page, expect

from tests.browser.support import (
    QUICK,
    choose_sample,
    downloaded,
    edit,
    file_of,
    newest,
    paint_stroke,
    set_number,
    show_regions,
    tinted_pixels,
)
from tests.support import ROOT, encoded, picture


def test_the_whole_way_of_an_edit(page: Page, service: str) -> None:
    choose_sample(page)
    expect(page.locator(".part .text")).to_have_text(["make the ball blue", "turn the grass into sand"])
    assert [box.get_attribute("placeholder") for box in page.locator(".keyword").all()] == ["ball", "grass"]
    assert tinted_pixels(page) == 0
    show_regions(page)
    assert tinted_pixels(page) > 0
    page.get_by_role("button", name="Edit", exact=True).click()
    expect(page.locator("#progress-text")).to_have_text(re.compile(r"Step \d+ of \d+"))
    expect(page.get_by_text("Preview", exact=True)).to_be_visible()
    expect(page.locator("#result")).to_be_visible()

    record = newest(page, service)
    before, after = file_of(service, record, "input.png"), file_of(service, record, "result.png")
    masks = [file_of(service, record, f"mask-{i}.png") for i in (1, 2)]
    outside = ~np.any(masks, axis=0)
    assert (before[outside] == after[outside]).all()
    expect(page.locator("#facts .good")).to_have_text(
        f"Outside unchanged: all {outside.sum():,} pixels outside the masks are the input’s, compared in this browser"
    )

    with page.expect_download() as result:
        page.get_by_role("button", name="Download result").click()
    answer = httpx.get(service + record["outputs"][0]["url"])
    assert downloaded(result.value) == answer.content
    with page.expect_download() as sheet:
        page.get_by_role("button", name="Sheet").click()
    assert Image.open(io.BytesIO(downloaded(sheet.value))).width > 3 * 128


def test_the_slider_is_moved_with_the_keyboard_and_the_layers_with_switches(page: Page) -> None:
    choose_sample(page)
    set_number(page, "Steps", QUICK)
    edit(page)
    slider = page.get_by_role("slider", name="Input to the left, Result to the right")
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "51% Input")
    page.keyboard.press("Home")
    expect(slider).to_have_attribute("aria-valuetext", "0% Input")
    with_masks = tinted_pixels(page)
    page.get_by_label("Masks", exact=True).uncheck()
    assert tinted_pixels(page) == 0
    page.get_by_label("Attention").check()
    assert tinted_pixels(page) > with_masks


def test_a_painted_region_is_the_mask_of_the_edit(page: Page, service: str) -> None:
    choose_sample(page)
    set_number(page, "Steps", QUICK)
    show_regions(page)
    page.get_by_role("button", name="Paint the region of instruction 1").click()
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".region").first).to_have_text("Your mask, 0%")
    paint_stroke(page)
    painted = page.locator(".region").first.inner_text()
    assert painted != "Your mask, 0%"
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".region").first).to_have_text("Your mask, 0%")
    page.get_by_role("button", name="Redo").click()
    expect(page.locator(".region").first).to_have_text(painted)
    page.get_by_role("button", name="Done").click()
    edit(page)
    record = newest(page, service)
    assert [part["has_mask"] for part in record["input"]["instructions"]] == [True, False]
    assert file_of(service, record, "mask-1.png")[48, 48] == 255
    assert file_of(service, record, "mask-1.png")[100, 100] == 0
    expect(page.locator("#facts .good")).to_be_visible()


def test_a_click_paints_a_dot_that_undo_takes_and_redo_brings_back(page: Page) -> None:
    choose_sample(page)
    page.get_by_role("button", name="Paint the region of instruction 1").click()
    page.locator("canvas.overlay").first.click()
    expect(page.locator(".region").first).to_have_text(re.compile(r"Your mask, 0\.\d%"))
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".region").first).to_have_text("Region not shown yet")
    page.get_by_role("button", name="Redo").click()
    expect(page.locator(".region").first).to_have_text(re.compile(r"Your mask, 0\.\d%"))


def test_a_photograph_that_lies_on_its_side_is_painted_as_it_is_seen(page: Page, service: str) -> None:
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    file = {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": encoded(picture(64, 128), "JPEG", exif=turned)}
    page.locator("#file").set_input_files(file)
    expect(page.locator("figcaption")).to_have_text("photo.jpg, 128 × 64")
    page.get_by_label("What should change?").fill("make the ball red")
    set_number(page, "Steps", "1")
    page.get_by_role("button", name="Paint the region of instruction 1").click()
    paint_stroke(page)
    page.get_by_role("button", name="Done").click()
    edit(page)
    mask = file_of(service, newest(page, service), "mask-1.png")
    assert mask.shape == (64, 128)
    assert (mask[32, 32], mask[32, 96]) == (255, 0)
    expect(page.locator("#facts .good")).to_be_visible()


def test_a_region_is_painted_with_the_keyboard_alone(page: Page) -> None:
    choose_sample(page)
    page.get_by_role("button", name="Paint the region of instruction 1").press("Enter")
    canvas = page.get_by_role("application")
    expect(canvas).to_be_focused()
    for key in ("ArrowLeft", "ArrowUp", " "):
        page.keyboard.press(key)
    expect(page.locator(".region").first).to_have_text(re.compile(r"Your mask, 0\.\d%"))
    page.keyboard.press("Control+z")
    expect(page.locator(".region").first).to_have_text("Region not shown yet")
    page.keyboard.press("Escape")
    expect(page.locator("#paint-bar")).to_be_hidden()


def test_a_warning_has_buttons_that_do_what_it_advises(page: Page, service: str) -> None:
    choose_sample(page)
    set_number(page, "Steps", QUICK)
    page.get_by_label("What should change?").fill("make the sky blue")
    edit(page)
    warning = page.locator("#warnings li").filter(has_text="The picture hardly changed")
    warning.get_by_role("button", name="8 steps").click()
    expect(page.locator("#facts")).to_contain_text("8 steps")
    assert newest(page, service)["input"]["num_inference_steps"] == 8
    expect(page.get_by_label("Steps")).to_have_value("8")


def test_an_instruction_about_everything_can_be_given_a_region(page: Page) -> None:
    choose_sample(page)
    set_number(page, "Steps", QUICK)
    page.get_by_label("What should change?").fill("make it night")
    edit(page)
    warning = page.locator("#warnings li").filter(has_text="nothing is protected")
    warning.get_by_role("button", name="Paint its region").click()
    expect(page.locator("#paint-name")).to_have_text("make it night")


def test_lines_keep_their_keyword_and_intensity(page: Page, service: str) -> None:
    choose_sample(page)
    set_number(page, "Steps", QUICK)
    page.get_by_role("button", name="Lines").click()
    page.get_by_role("button", name="Remove instruction 2").click()
    page.get_by_role("button", name="Add an instruction").click()
    page.keyboard.type("make the house red")
    expect(page.locator(".keyword").nth(1)).to_have_attribute("placeholder", "house")
    page.locator(".keyword").nth(0).fill("the ball")
    page.locator(".intensity").nth(1).fill("2.5")
    edit(page)
    parts = newest(page, service)["input"]["instructions"]
    told = [(part["text"], part["keyword"], part["keyword_source"], part["intensity"]) for part in parts]
    assert told == [("make the ball blue", "the ball", "given", 1), ("make the house red", "house", "rule", 2.5)]


def test_several_seeds_stand_beside_plain_instructpix2pix(page: Page) -> None:
    choose_sample(page)
    set_number(page, "Steps", QUICK)
    page.get_by_role("spinbutton", name="Outputs").fill("2")
    edit(page)
    page.locator("#tiles button").filter(has_text="Seed 8").click()
    expect(page.locator("figcaption").first).to_have_text("Focus on Your Instruction, seed 8")
    page.get_by_label("Beside InstructPix2Pix").check()
    expect(page.locator("figcaption").nth(1)).to_have_text("Plain InstructPix2Pix, seed 8")
    expect(page.locator(".viewer")).to_have_count(2)


def test_the_seed_is_kept_or_drawn_anew(page: Page, service: str) -> None:
    choose_sample(page)
    set_number(page, "Steps", "1")
    edit(page)
    edit(page)
    assert newest(page, service)["input"]["seed"] == 7
    page.get_by_label("Keep").uncheck()
    edit(page)
    assert newest(page, service)["input"]["seed"] != 7
    seed = page.get_by_label("Seed", exact=True)
    before = seed.input_value()
    page.get_by_role("button", name="Re-roll").click()
    assert seed.input_value() != before


def test_the_shown_curl_line_makes_the_same_picture(page: Page, service: str, tmp_path: Path) -> None:
    choose_sample(page)
    set_number(page, "Steps", QUICK)
    page.get_by_text("This edit as code").click()
    edit(page)
    shown = page.locator("#code").inner_text()
    (tmp_path / "meadow.png").write_bytes((ROOT / "service/playground/samples/meadow.png").read_bytes())
    done = subprocess.run(["bash", "-c", shown], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert newest(page, service)["outputs"][0]["sha256"] in done.stdout
    page.get_by_role("button", name="Python").click()
    compile(page.locator("#code").inner_text(), "shown", "exec")
