"""The App in a browser: perceive photographs with the real `lite`, look at the regions, search, accept, edit, reject.

PAM_SCREENSHOTS=folder keeps pictures of it, as they are in docs/fiftyone.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from tests.fiftyone_plugin.conftest import ROOT, relative

PHOTOS = ROOT / "tests" / "data" / "photos"
BOXES = {
    "kitten.jpg": (1024, 576, [(343, 110, 680, 519)]),
    "coffee.jpg": (600, 400, [(173, 18, 409, 309), (76, 68, 480, 390)]),
}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
PATIENCE = 120
"""Seconds to wait for anything, on a machine that does other things as well."""


@pytest.fixture
def photographs(host: dict[str, str]) -> Iterator[Any]:
    """Two photographs with boxes."""
    import fiftyone as fo

    dataset = fo.Dataset("photographs", persistent=True)
    for name, (width, height, boxes) in BOXES.items():
        detections = [fo.Detection(label="thing", bounding_box=relative(box, width, height)) for box in boxes]
        dataset.add_sample(fo.Sample(filepath=str(PHOTOS / name), boxes=fo.Detections(detections=detections)))
    yield dataset
    dataset.delete()


@pytest.fixture
def app(host: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """FiftyOne's server on a free loopback port; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with (tmp_path / "app.log").open("w+") as log:
        command = [sys.executable, "-m", "fiftyone.server.main", "--port", str(port), "--address", "127.0.0.1"]
        with subprocess.Popen(command, env=host, stdout=log, stderr=subprocess.STDOUT) as process:
            try:
                for _ in range(PATIENCE):
                    try:
                        direct.open(address, timeout=5).close()
                        break
                    except (URLError, TimeoutError):
                        try:
                            process.wait(1)
                        except subprocess.TimeoutExpired:
                            continue
                        log.seek(0)
                        pytest.fail(f"The App ended:\n{log.read()[-3000:]}")
                yield address
            finally:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    """A page of a browser that reaches nothing but this machine."""
    from playwright import sync_api

    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("CHROMIUM_PATH") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.fail("No Chromium was found: install it (`apt-get install chromium`) or set CHROMIUM_PATH to one.")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        context = browser.new_context(viewport={"width": 1500, "height": 900})
        context.route(lambda url: "//127.0.0.1" not in url, lambda route: route.abort())
        context.set_default_timeout(PATIENCE * 1000)
        page = context.new_page()
        yield page
        browser.close()


@pytest.fixture
def keep(page: Any) -> Callable[..., None]:
    """Keeps a picture of the page where PAM_SCREENSHOTS names a folder."""

    def shoot(name: str, width: int = 1500) -> None:
        folder = os.environ.get("PAM_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            page.wait_for_timeout(1500)  # for the sake of the picture: fades and masks being painted
            part = {"x": 0, "y": 0, "width": width, "height": 900}
            page.screenshot(path=str(Path(folder) / f"{name}.jpg"), type="jpeg", quality=80, clip=part)

    return shoot


def by(where: Any, name: str) -> Any:
    return where.locator(f"[data-cy={name}]")


@pytest.mark.timeout(600)
def test_from_the_operator_to_the_last_verdict(
    photographs: Any, app: str, page: Any, keep: Callable[..., None]
) -> None:
    page.goto(f"{app}/datasets/{photographs.name}", wait_until="domcontentloaded")
    by(page, "looker").first.wait_for()
    perceive(page, keep)
    photographs.reload()
    found = [label for sample in photographs for label in sample["regions"].detections]
    assert len(found) == 3
    for label in found:
        assert label.get_mask().any() and label["model"].startswith("lite")
        assert label.label and label["caption"] and label["label_zh"] and label["caption_zh"]
    kitten = photographs.first()["regions"].detections[0]
    assert kitten.label == "cat"

    page.reload(wait_until="domcontentloaded")  # FiftyOne's view of a sample does not know new fields before that
    by(page, "looker").first.wait_for()
    dismiss = page.get_by_role("button", name="Dismiss")
    if dismiss.count():
        dismiss.click()
    review_in_the_grid(page, photographs, keep)
    review_in_the_sample(page, photographs, keep)


def perceive(page: Any, keep: Callable[..., None]) -> None:
    """Run "Perceive regions" on the boxes, in both languages."""
    page.keyboard.press("`")
    page.get_by_placeholder("Search operations by name...").fill("Perceive regions")
    page.get_by_text("Perceive regions", exact=True).first.wait_for()
    page.keyboard.press("Enter")
    form = page.get_by_role("dialog")
    form.get_by_text("Prompts", exact=True).wait_for()
    form.get_by_role("combobox").first.click()
    page.get_by_role("option", name="The labels of boxes").click()
    form.get_by_text("Proposer of regions").wait_for(state="detached")
    form.get_by_role("combobox").last.click()
    page.get_by_role("option", name="Chinese").click()
    form.get_by_text("in en, zh").wait_for()
    keep("operator")
    form.get_by_role("button", name="Execute").click()
    page.get_by_text("2 of 2 samples").first.wait_for()
    page.get_by_role("button", name="Done").click()
    form.wait_for(state="detached")


def tags(dataset: Any) -> list[list[str]]:
    dataset.reload()
    return [label.tags for sample in dataset for label in sample["regions"].detections]


def review_in_the_grid(page: Any, dataset: Any, keep: Callable[..., None]) -> None:
    """Open the panel beside the pictures, search in Chinese, accept one, edit one."""
    by(page, "new-panel-btn").first.click()
    page.get_by_text("Regions", exact=True).first.click()
    panel = by(page, "panel-content-regions_panel")
    panel.get_by_text("Regions 1 to 3 of the view").wait_for()
    search = panel.get_by_role("textbox").first
    search.fill("猫")
    panel.get_by_role("button", name="Search").click()
    panel.get_by_text("Regions 1 to 1 of the view").wait_for()
    panel.get_by_role("row").nth(2).wait_for(state="detached")  # the head and the cat are left
    panel.get_by_role("row").nth(1).get_by_label("Accept").click()
    panel.get_by_role("cell", name="accepted").wait_for()
    assert tags(dataset) == [["accepted"], [], []]
    search.fill("")
    panel.get_by_role("button", name="Search").click()
    panel.get_by_role("row").nth(3).wait_for()

    panel.get_by_role("row").nth(2).get_by_label("Edit").click()
    caption = panel.locator("textarea:not([aria-hidden])").first
    caption.wait_for()
    caption.fill("A cup of coffee on a saucer.")
    panel.get_by_role("button", name="Save").click()
    panel.get_by_role("cell", name="edited").wait_for()
    assert tags(dataset) == [["accepted"], ["edited"], []]
    cup = dataset.last()["regions"].detections[0]
    assert cup["caption"] == "A cup of coffee on a saucer." and "coffee" not in cup["original_caption"]
    panel.get_by_role("row").nth(1).get_by_role("cell").first.click()
    keep("panel")


def review_in_the_sample(page: Any, dataset: Any, keep: Callable[..., None]) -> None:
    """Open a sample from the table, reject in the panel beside it, and read a caption by pointing at its region."""
    by(page, "panel-content-regions_panel").get_by_role("row").nth(2).get_by_label("Open the sample").click()
    modal = by(page, "modal")
    by(modal, "panel-tab-regions_panel").click()
    panel = by(modal, "panel-content-regions_panel")
    panel.get_by_text("Regions 1 to 2 of this sample").wait_for()
    panel.get_by_role("row").nth(2).wait_for()
    modal.get_by_title("Split horizontally").click()
    panel.get_by_role("row").nth(2).get_by_label("Reject").click()
    panel.get_by_role("cell", name="rejected").wait_for()
    assert tags(dataset) == [["accepted"], ["edited"], ["rejected"]]

    by(modal, "checkbox-boxes").first.click()  # else they are on top of the regions
    panel.get_by_role("row").nth(1).get_by_role("cell").first.click()
    picture = by(modal, "modal-looker-container")
    picture.wait_for()
    box = picture.bounding_box()
    tooltip = page.get_by_text("A cup of coffee on a saucer.", exact=True)  # the tables show the Chinese one as well
    for step in range(60):
        page.mouse.move(box["x"] + box["width"] * 0.46 + step % 3, box["y"] + box["height"] * 0.33)
        if tooltip.count():
            break
        page.wait_for_timeout(500)
    keep("regions", 1160)  # the sidebar shows where files lie
    assert tooltip.count(), "The caption was not shown beside the region."
