"""The page as such: what it refuses, what it remembers, whom it lets in, and that everybody can use it."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from redis import Redis

from jobs.keys import ApiKeys
from jobs.settings import Settings
from tests.browser.conftest import OpenPage
from tests.browser.support import QUICK, choose_sample, edit, newest, paint_stroke, set_number, show_regions
from tests.service.conftest import serving
from tests.support import encoded, picture

NASTY = "<img src=x onerror=alert(1)>"


@pytest.mark.parametrize(
    ("name", "kind", "content", "detail"),
    [
        ("notes.txt", "text/plain", b"no picture", "only PNG, JPEG and WebP can be edited"),
        ("torn.png", "image/png", b"\x89PNG\r\n\x1a\nno more", "it cannot be read as a picture"),
        ("thin.png", "image/png", encoded(picture(300, 20)), "one side is more than 8 times the other"),
        ("tiny.png", "image/png", encoded(picture(8, 8)), "its sides must have at least 16 pixels"),
    ],
)
def test_a_bad_file_is_refused_where_it_was_given(
    page: Page, name: str, kind: str, content: bytes, detail: str
) -> None:
    expect(page.locator("#service")).to_have_text("demo model")
    page.locator("#file").set_input_files({"name": name, "mimeType": kind, "buffer": content})
    expect(page.locator("#stage-problem")).to_contain_text(f"{name}: {detail}")
    choose_sample(page)
    expect(page.locator("#stage-problem")).to_be_hidden()


def test_what_the_service_refuses_is_said_at_the_field(service: str, open_page: OpenPage) -> None:
    page = open_page(service, refusals=True)
    choose_sample(page)
    set_number(page, "Steps", "1000")
    page.locator(".keyword").first.fill("zebra")
    page.get_by_role("button", name="Show regions").click()
    expect(page.locator(".part .problem")).to_contain_text("a word of 'make the ball blue'")
    page.locator(".keyword").first.fill("")
    page.get_by_role("button", name="Show regions").click()
    expect(page.locator("[data-field=num_inference_steps] .problem")).to_contain_text("from 1 to 150")
    set_number(page, "Steps", QUICK)
    page.get_by_role("button", name="Paint the region of instruction 2").click()
    paint_stroke(page)
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="Show regions").click()
    expect(page.locator(".part").nth(1).locator(".problem")).to_contain_text("no white pixel")


def test_who_has_not_said_enough_is_told_what_is_missing(page: Page) -> None:
    page.get_by_role("button", name="Edit", exact=True).click()
    expect(page.locator("#ask-problem")).to_have_text("Choose a picture first, or one of the samples.")
    choose_sample(page)
    page.get_by_label("What should change?").fill("")
    page.get_by_role("button", name="Edit", exact=True).click()
    expect(page.locator("#ask-problem")).to_contain_text("Say what to change")


def test_a_running_edit_is_canceled(page: Page, service: str) -> None:
    choose_sample(page)
    set_number(page, "Steps", "150")
    set_number(page, "Strength", "1")
    page.get_by_role("button", name="Edit", exact=True).click()
    expect(page.locator("#progress-text")).to_contain_text("Step")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#ask-problem")).to_have_text("Canceled. Nothing was changed.")
    assert newest(page, service)["status"] == "canceled"
    expect(page.locator("#history .label")).to_have_text("canceled")


def test_another_picture_leaves_a_running_edit_to_the_history(page: Page, service: str) -> None:
    choose_sample(page)
    set_number(page, "Steps", "150")
    page.get_by_role("button", name="Edit", exact=True).click()
    expect(page.locator("#progress-text")).to_contain_text("Step")
    choose_sample(page, "lake")
    expect(page.locator("#progress")).to_be_hidden()
    page.locator("#history button").click()
    expect(page.locator("#progress-text")).to_contain_text("Step")
    expect(page.locator(".line").first).to_have_value("make the ball blue")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#ask-problem")).to_have_text("Canceled. Nothing was changed.")
    assert newest(page, service)["status"] == "canceled"


def test_markup_in_names_and_texts_is_text(page: Page) -> None:
    page.locator("#file").set_input_files(
        {"name": f"{NASTY}.png", "mimeType": "image/png", "buffer": encoded(picture())}
    )
    expect(page.locator("figcaption")).to_contain_text(f"{NASTY}.png")
    page.get_by_label("What should change?").fill(f"make the ball {NASTY} blue")
    expect(page.locator(".part .text")).to_have_text(f"make the ball {NASTY} blue")
    set_number(page, "Steps", "1")
    edit(page)
    page.reload()
    expect(page.locator("#history")).to_contain_text(NASTY)
    assert page.locator("img[src=x]").count() == 0


def test_the_history_survives_a_reload_and_says_what_has_expired(service: str, open_page: OpenPage) -> None:
    page = open_page(service, refusals=True)
    choose_sample(page)
    set_number(page, "Steps", QUICK)
    edit(page)
    fact = page.locator("#facts .good").inner_text()
    page.reload()
    page.locator("#history button").click()
    expect(page.locator("#facts .good")).to_have_text(fact)
    expect(page.locator(".line").first).to_have_value("make the ball blue")
    httpx.delete(service + newest(page, service)["urls"]["self"]).raise_for_status()
    page.reload()
    expect(page.locator("#history .label")).to_have_text("expired")
    expect(page.locator("#history button")).to_be_disabled()
    page.get_by_role("button", name="Forget all").click()
    expect(page.locator("#history-section")).to_be_hidden()


def test_two_tabs_do_not_disturb_each_other(service: str, open_page: OpenPage) -> None:
    first = open_page(service)
    second = open_page(service, beside=first)
    for page, sample in ((first, "meadow"), (second, "lake")):
        choose_sample(page, sample)
        set_number(page, "Steps", QUICK)
        page.get_by_role("button", name="Edit", exact=True).click()
    for page, word in ((first, "ball"), (second, "hat")):
        expect(page.locator("#result")).to_be_visible()
        assert page.locator(".keyword").first.get_attribute("placeholder") == word
        expect(page.locator("#history li")).to_have_count(2)


def test_a_picture_is_pasted(page: Page) -> None:
    page.evaluate(
        """async () => {
            const blob = await (await fetch("/playground/samples/lake.png")).blob();
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([blob], "pasted.png", { type: "image/png" }));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
        }"""
    )
    expect(page.locator("figcaption")).to_have_text("pasted.png, 128 × 128")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 380])
def test_axe_finds_nothing_serious(service: str, open_page: OpenPage, scheme: str, width: int) -> None:
    page = open_page(service, color_scheme=scheme, viewport={"width": width, "height": 860})
    assert serious(page) == []
    choose_sample(page, "winter")
    set_number(page, "Steps", QUICK)
    page.get_by_text("This edit as code").click()
    show_regions(page)
    page.get_by_role("button", name="Paint the region of instruction 1").click()
    assert serious(page) == []
    page.get_by_label("Beside InstructPix2Pix").check()
    edit(page)
    assert serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in ("serious", "critical")]


def test_the_theme_is_the_systems_until_the_button_says_otherwise(service: str, open_page: OpenPage) -> None:
    page = open_page(service, color_scheme="dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Light").click()
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")


def test_a_key_is_asked_for_and_kept_in_its_tab_alone(
    tmp_path: Path, redis: Redis, redis_url: str, open_page: OpenPage
) -> None:
    token, _ = ApiKeys(redis).create("page", ("submit", "read"))
    with serving(Settings(auth="keys", data_dir=tmp_path, redis_url=redis_url), redis_url) as url:
        page = open_page(url, refusals=True)
        page.get_by_label("What should change?").fill("make the ball red")
        page.get_by_label("This service asks for an API key").fill(token)
        page.get_by_role("button", name="Use it").click()
        expect(page.locator("#key-form")).to_be_hidden()
        page.get_by_role("button", name="Show regions").click()
        expect(page.locator(".part .text")).to_have_text("make the ball red")
        assert token in page.evaluate("JSON.stringify(sessionStorage)")
        assert token not in page.evaluate("JSON.stringify(localStorage) + document.cookie")
        other = open_page(url, beside=page, refusals=True)
        expect(other.locator("#key-form")).to_be_visible()
        page.context.close()


def test_the_documentation_needs_no_other_host(service: str, open_page: OpenPage) -> None:
    page = open_page(service)
    page.get_by_role("link", name="API").click()
    expect(page.get_by_role("heading", name="Focus on Your Instruction")).to_be_visible()
    expect(page.get_by_text("See how a text is read")).to_be_visible()


def test_the_policy_allows_no_script_or_style_but_the_pages_own(service: str) -> None:
    for path in ("/", "/playground/main.js"):
        policy = httpx.get(service + path).headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
    assert httpx.get(f"{service}/playground/../app.py").status_code == 404
    assert httpx.get(f"{service}/playground/%2e%2e/app.py").status_code == 404
