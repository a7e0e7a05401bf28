"""The page's bytes: what is in them, what is not, and when they take the old page's place."""

from __future__ import annotations

import base64
import json
import re

import cv2
import numpy as np
import pytest

from pam_core.errors import DatasetError
from pam_core.masks import Mask
from pam_core.types import Region
from pam_plugins.render import html_page as page
from pam_plugins.render import palette
from pam_plugins.render.html_page import HtmlPageFormat
from pam_plugins.render.outlines import outline
from tests.factories import as_result
from tests.pam_plugins.render.made_up import TEXTS, disc, perception, picture, region, ring


def export(folder, *pairs):
    sink = HtmlPageFormat().open(str(folder))
    sink.write([as_result(*pair) for pair in pairs])
    sink.close()
    return (folder / "index.html").read_text("utf-8")


def blocks(html: str, attribute: str) -> list:
    found = re.findall(rf'<script type="application/json" {attribute}>(.*?)</script>', html, re.DOTALL)
    return [json.loads(text) for text in found]


def painted(path: str, width: int, height: int) -> np.ndarray:
    """The path filled even-odd, as a browser does it, at eight times the size."""
    loops = [
        np.array([[float(n) * 8 for n in pair.split(",")] for pair in part.split()])
        for part in re.findall(r"M([^Z]*)Z", path)
    ]
    canvas = np.zeros((height * 8, width * 8), np.uint8)
    cv2.fillPoly(canvas, [np.rint(loop).astype(np.int32) for loop in loops], 1)
    return cv2.resize(canvas * 255, (width, height), interpolation=cv2.INTER_AREA) > 127


def test_everything_is_in_the_one_file(tmp_path, scene):
    html = export(tmp_path, scene())
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert not re.search(r"(src|href)=[\"']?(?!#)[a-z./]", html)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", html)
    assert "default-src 'none'" in html


def test_picture_regions_and_words_are_there(tmp_path, scene):
    shown, pixels = scene()
    html = export(tmp_path, (shown, pixels))
    (record,) = blocks(html, "data-picture")
    assert [Region.from_json(entry["region"]) for entry in record["regions"]] == list(shown.regions)
    assert record["regions"][0]["region"]["texts"] == TEXTS
    assert [entry["colour"] for entry in record["regions"]] == list(palette.COLOURS[:3])
    assert record["model"]["description"].startswith("A made-up model")
    jpeg = base64.b64decode(record["photo"].removeprefix("data:image/jpeg;base64,"))
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == pixels.shape
    (run,) = blocks(html, 'id="run"')
    assert (run["pictures"], run["regions"], run["failed"]) == (1, 3, 0)
    assert run["languages"] == ["en", "zh"]


def test_large_pictures_are_scaled_down_and_their_masks_with_them(tmp_path, scene):
    (record,) = blocks(export(tmp_path, scene(width=3200, height=2400)), "data-picture")
    assert record["canvas"] == [1280, 960]
    assert (record["width"], record["height"]) == (3200, 2400)
    expected = disc(1280, 960, 448, 480, 288)
    drawn = painted(record["regions"][0]["path"], 1280, 960)
    assert (drawn & expected).sum() / (drawn | expected).sum() > 0.99


HOSTILE = "</script><script>alert(1)</script><!-- <b>bold</b> & \u2028 \u2029"


def test_hostile_words_stay_words(tmp_path):
    texts = {task: {"en": HOSTILE} for task in ("label", "brief", "text", HOSTILE)}
    hostile = region(disc(40, 30, 20, 15, 8), texts)
    html = export(
        tmp_path,
        (perception(HOSTILE, 40, 30, hostile), picture(40, 30)),
        (perception("b", 0, 0, error=HOSTILE), None),
    )
    plain = export(tmp_path, (perception("a", 40, 30), picture(40, 30)), (perception("b", 0, 0, error="x"), None))
    for tag in ("<script", "</script", "<!--", "<b>"):
        assert html.count(tag) == plain.count(tag)
    first, second = blocks(html, "data-picture")
    assert first["image"] == HOSTILE
    assert first["regions"][0]["region"]["texts"]["label"]["en"] == HOSTILE
    assert second["error"] == HOSTILE


def test_after_the_limit_pictures_are_counted_and_not_embedded(tmp_path, monkeypatch):
    assert page.MAX_PICTURES == 200
    one = perception("a.jpg", 12, 9, region(disc(12, 9, 6, 4, 3))), picture(12, 9)
    html = export(tmp_path, *[one] * 203)
    assert len(blocks(html, "data-picture")) == 200
    (run,) = blocks(html, 'id="run"')
    assert (run["pictures"], run["shown"], run["regions"]) == (203, 200, 203)
    assert "the results file holds all of them" in html


def test_an_empty_run_is_a_page_too(tmp_path):
    (run,) = blocks(export(tmp_path), 'id="run"')
    assert run["pictures"] == 0


def test_the_old_page_stays_until_close(tmp_path, scene):
    old = tmp_path / "index.html"
    old.write_text("old")
    sink = HtmlPageFormat().open(str(tmp_path))
    sink.write([as_result(*scene())])
    assert old.read_text() == "old"
    sink.close()
    sink.close()
    assert old.read_text("utf-8").startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_after_a_failed_write_the_old_page_stays_for_good(tmp_path, scene, monkeypatch):
    old = tmp_path / "index.html"
    old.write_text("old")
    sink = HtmlPageFormat().open(str(tmp_path))
    sink.write([as_result(*scene())])

    class Full:
        """A file on a full disk."""

        def __init__(self, file):
            self.file = file

        closed = property(lambda self: self.file.closed)

        def write(self, text):
            raise OSError(28, "No space left on device")

        def close(self):
            self.file.close()

    sink._part._file = Full(sink._part._file)
    with pytest.raises(DatasetError, match=r"Cannot write .*index\.html: No space left"):
        sink.write([as_result(*scene())])
    sink.close()
    assert old.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_a_place_that_is_no_folder_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DatasetError, match="file cannot be written"):
        HtmlPageFormat().open(str(tmp_path / "file"))


@pytest.mark.parametrize(
    "mask",
    [
        disc(120, 90, 60, 45, 30),
        ring(120, 90, 60, 45, 40, 15),
        disc(120, 90, 25, 45, 20) | disc(120, 90, 95, 45, 18),
        np.ones((90, 120), dtype=bool),
        disc(120, 90, 0, 0, 50),
    ],
    ids=["disc", "ring", "two parts", "everything", "corner"],
)
def test_outlines_fill_to_the_mask_they_came_from(mask):
    drawn = outline(Mask.from_array(mask), 120, 90)
    filled = painted(drawn.path, 120, 90)
    assert (filled & mask).sum() / (filled | mask).sum() > 0.96
    assert mask[int(drawn.y), int(drawn.x)]


def test_outlines_are_small():
    drawn = outline(Mask.from_array(disc(4000, 3000, 2000, 1500, 1200)), 1280, 960)
    assert len(drawn.path) < 2000


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1)])
def test_thin_masks_can_be_pointed_at(size):
    mask = np.zeros((300, 400), dtype=bool)
    mask[100 : 100 + size[1], 200 : 200 + size[0]] = True
    for width, height in ((400, 300), (100, 75)):
        drawn = outline(Mask.from_array(mask), width, height)
        assert painted(drawn.path, width * 4, height * 4).any() or drawn.path.count(",") >= 4
    assert outline(Mask.from_array(np.zeros((30, 40), dtype=bool)), 40, 30) is None
