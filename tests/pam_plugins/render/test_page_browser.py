"""The page in a real browser, from the disk and without a network."""

from __future__ import annotations

import os
import shutil

import pytest

from pam_plugins.render.html_page import HtmlPageFormat
from tests.factories import as_result
from tests.pam_plugins.render.made_up import perception, region

pytestmark = pytest.mark.e2e
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]


def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM_PATH") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.fail("No Chromium was found: install it (`apt-get install chromium`) or set CHROMIUM_PATH to one.")
    return found


@pytest.fixture(scope="module")
def browser():
    from playwright import sync_api

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, tmp_path, scene):
    """Opens a page in a browser of some size; in the end there must be no errors and no requests."""
    complaints: list[str] = []
    contexts = []

    def show(*pairs, width=1400, height=900, **options):
        writer = HtmlPageFormat().open(str(tmp_path))
        for pair in pairs or (scene("one.jpg"), scene("two.jpg")):
            writer.write([as_result(*pair)])
        writer.close()
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on(
            "request",
            lambda request: request.url.startswith(("file:", "data:")) or complaints.append(request.url),
        )
        page.goto((tmp_path / "index.html").as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    assert complaints == []


def point_at(page, x: float, y: float) -> None:
    """Move the mouse to a place of the picture, in its own 400 x 300 pixels."""
    box = page.locator("#photo").bounding_box()
    page.mouse.move(box["x"] + x / 400 * box["width"], box["y"] + y / 300 * box["height"])


def lit(page) -> list[str]:
    return page.eval_on_selector_all("path.region.on", "nodes => nodes.map(node => node.dataset.region)")


def lit_cards(page) -> list[str]:
    return page.eval_on_selector_all(".card.on", "nodes => nodes.map(node => node.dataset.region)")


def test_pointing_at_a_region_lights_it_and_its_card(opened):
    page = opened()
    assert lit(page) == lit_cards(page) == []
    point_at(page, 80, 150)
    assert lit(page) == lit_cards(page) == ["0"]
    assert page.locator("#chip").inner_text() == "tabby cat 87%"
    card = page.locator(".card.on").inner_text()
    for words in ("tabby cat", "A cat with stripes.", "A cat on a mat.", "A striped cat lies on a mat.", "MEOW"):
        assert words in card
    point_at(page, 20, 280)
    assert lit(page) == lit_cards(page) == []


def test_the_smallest_region_under_the_pointer_wins_and_holes_are_open(opened):
    page = opened()
    point_at(page, 150, 160)
    assert lit(page) == ["1"]
    point_at(page, 330, 42)
    assert lit(page) == ["2"]
    point_at(page, 330, 80)
    assert lit(page) == []


def test_cards_light_their_regions_by_mouse_and_by_keyboard(opened):
    page = opened()
    page.locator(".card").nth(2).hover()
    assert lit(page) == ["2"]
    page.mouse.move(5, 5)
    page.locator(".card .head").first.focus()
    assert lit(page) == ["0"]
    for _ in range(3):
        page.keyboard.press("Tab")
    assert lit(page) == lit_cards(page) != ["0"]
    page.locator(".card .head").first.focus()
    page.keyboard.press("Enter")
    assert page.locator(".card .head").first.get_attribute("aria-expanded") == "false"
    assert not page.get_by_text("A striped cat lies on a mat.").is_visible()


def test_switching_the_language(opened):
    page = opened()
    page.get_by_role("button", name="中文").click()
    first = page.locator(".card").first.inner_text()
    assert "虎斑猫" in first and "垫子上的猫。" in first and "tabby cat" not in first
    assert page.locator("html").get_attribute("lang") == "zh"
    assert page.locator(".card").nth(1).locator(".lead").inner_text().split() == ["A", "nose.", "EN"]
    page.get_by_role("button", name="EN", exact=True).click()
    assert "tabby cat" in page.locator(".card").first.inner_text()


def test_arrow_keys_go_through_the_pictures(opened):
    page = opened()
    assert page.locator("#name").inner_text() == "one.jpg"
    page.keyboard.press("ArrowRight")
    assert page.locator("#name").inner_text() == "two.jpg"
    page.keyboard.press("ArrowRight")
    assert page.locator("#name").inner_text() == "two.jpg"
    page.keyboard.press("ArrowLeft")
    assert page.locator("#name").inner_text() == "one.jpg"


def test_one_picture_in_one_language_has_neither_strip_nor_switch(opened, scene):
    shown, pixels = scene()
    only = region(shown.regions[0].mask.array, {"label": {"en": "cat"}})
    page = opened((perception("one.jpg", 400, 300, only), pixels))
    assert not page.locator("#strip").is_visible()
    assert not page.locator("#languages").is_visible()


def test_hostile_words_are_shown_and_not_run(opened, scene):
    shown, pixels = scene()
    words = "</script><img src=x onerror=alert(1)><script>alert(2)</script>"
    hostile = region(shown.regions[0].mask.array, {"label": {"en": words}, "text": {"en": words}})
    page = opened((perception(words, 400, 300, hostile), pixels))
    assert page.locator(".card .label").inner_text() == words
    assert page.locator("#name").inner_text() == words
    assert page.locator("img").count() == 2  # the photo and its thumbnail


def test_a_failed_picture_says_why(opened, scene):
    page = opened((perception("bad.jpg", 0, 0, error="bad.jpg: damaged; get the file again."), None), scene())
    assert "bad.jpg: damaged; get the file again." in page.locator(".failure").inner_text()
    assert "1 picture could not be perceived." in page.locator("#notice").inner_text()


def test_after_the_limit_the_page_says_so(opened, scene):
    page = opened(*[scene(width=40, height=30)] * 202)
    assert page.locator(".thumb").count() == 200
    wanted = "This page shows the first 200 of 202 pictures; the results file holds all of them."
    assert wanted in page.locator("#notice").inner_text()


def test_a_region_can_be_copied_as_json(opened, scene):
    shown, pixels = scene()
    page = opened((shown, pixels), permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy JSON").first.click()
    page.get_by_text("Copied").first.wait_for()
    assert page.evaluate("navigator.clipboard.readText().then(JSON.parse)") == shown.regions[0].to_json()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_it_fits_and_a_tap_shows_the_card(opened, scheme):
    page = opened(width=400, height=800, has_touch=True, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    box = page.locator("#photo").bounding_box()
    page.touchscreen.tap(box["x"] + 330 / 400 * box["width"], box["y"] + 42 / 300 * box["height"])
    assert lit(page) == lit_cards(page) == ["2"]
    page.wait_for_timeout(600)
    card = page.locator(".card.on").bounding_box()
    assert 0 < card["y"] < 800
