"""Pixels under a mask change, pixels far from it do not, and every picture gets a file of its own."""

from __future__ import annotations

import numpy as np
import pytest

from pam_core.errors import DatasetError
from pam_core.media.images import read_picture
from pam_core.types import Prompt
from pam_plugins.render import overlay, palette
from pam_plugins.render.overlay import OverlayFormat, draw
from tests.factories import as_result
from tests.pam_plugins.render.made_up import disc, perception, picture, region


def export(folder, *pairs):
    sink = OverlayFormat().open(str(folder))
    sink.write([as_result(*pair) for pair in pairs])
    sink.close()


def rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


@pytest.mark.parametrize("size", [(96, 64), (400, 300), (2400, 1800)])
def test_draws_on_the_mask_and_nowhere_far_from_it(tmp_path, size):
    width, height = size
    mask = disc(width, height, width * 0.3, height * 0.6, height * 0.2)
    before = picture(width, height)
    texts = {} if height < 100 else None  # on a thumbnail the label is as wide as the picture
    export(tmp_path, (perception("a.jpg", width, height, region(mask, texts)), before))
    after = read_picture(tmp_path / "a.overlay.png")
    assert after.shape == before.shape
    changed = (after != before).any(axis=2)
    assert changed[mask].mean() > 0.99
    far = ~disc(width, height, width * 0.3, height * 0.6, height * 0.2 + height * 0.5)
    assert not changed[far].any()


def test_the_tint_is_the_palette_colour_of_the_region(scene):
    shown, before = scene()
    after = draw(before, shown.regions).astype(int)
    for index, (x, y) in {0: (70, 190), 1: (160, 165), 2: (330, 118)}.items():
        change = after[y, x] - before[y, x]
        colour = rgb(palette.colour_of(shown.regions[index], index))
        assert np.array_equal(np.sign(change), np.sign(colour - after[y, x])) or np.abs(change).max() < 5


def test_clicks_are_green_and_red_dots(scene):
    shown, before = scene()
    after = draw(before, shown.regions)
    assert np.array_equal(after[120, 100], rgb(palette.FOREGROUND))
    assert np.array_equal(after[250, 300], rgb(palette.BACKGROUND))


def test_the_picture_given_is_left_as_it_was(scene):
    shown, before = scene()
    copy = before.copy()
    draw(before, shown.regions)
    assert np.array_equal(before, copy)


def test_two_pictures_with_one_stem_get_two_files(tmp_path, scene):
    export(tmp_path, scene("a/cat.jpg"), scene("b/cat.png"), scene("c\\CAT.webp"), scene('odd:"na*me?.jpg'))
    names = sorted(path.name for path in tmp_path.iterdir())
    expected = ["CAT-3.overlay.png", "cat-2.overlay.png", "cat.overlay.png", "odd__na_me_.overlay.png"]
    assert names == expected


def test_a_failed_picture_leaves_no_file(tmp_path):
    export(tmp_path, (perception("bad.jpg", 0, 0, error="bad.jpg: damaged"), None))
    assert list(tmp_path.iterdir()) == []


def test_a_picture_without_regions_is_written_as_it_is(tmp_path):
    before = picture(40, 30)
    export(tmp_path, (perception("plain.jpg", 40, 30), before))
    assert np.array_equal(read_picture(tmp_path / "plain.overlay.png"), before)


@pytest.mark.parametrize("label", ["a label", "标签"])
def test_labels_of_regions_on_one_spot_do_not_cover_one_another(label):
    """Each label is a plate of its region's colour; supervision moves them apart."""
    if overlay.cjk_font() is None and overlay.is_cjk(label):
        pytest.skip("no font here has Chinese characters")
    mask = disc(400, 300, 200, 150, 40)
    texts = {"label": {"en": label}}
    before = np.full((300, 400, 3), 60, np.uint8)
    one = (draw(before, [region(mask, texts)]) == rgb(palette.COLOURS[0])).all(axis=2).sum()
    after = draw(before, [region(mask, texts)] * 4)
    for colour in palette.COLOURS[:4]:
        assert (after == rgb(colour)).all(axis=2).sum() > 0.4 * one  # the outline counts too in `one`


@pytest.mark.parametrize("size", [(1, 1), (9, 7), (300, 8)])
def test_tiny_pictures_and_long_labels(size):
    mask = np.ones(size[::-1], dtype=bool)
    shown = region(mask, {"label": {"en": "an unreasonably long label " * 9}}, prompt=Prompt.at(0, 0))
    assert draw(picture(*size), [shown]).shape == (size[1], size[0], 3)


def test_an_empty_mask_draws_nothing():
    before = picture(40, 30)
    assert np.array_equal(draw(before, [region(np.zeros((30, 40), dtype=bool))]), before)


def test_chinese_only_where_english_is_absent(monkeypatch):
    mask = disc(200, 150, 100, 80, 40)
    both, chinese = region(mask), region(mask, {"label": {"zh": "虎斑猫"}})
    assert overlay.caption_of(both) == "tabby cat 87%"
    monkeypatch.setattr(overlay, "cjk_font", lambda: None)
    assert overlay.caption_of(chinese) == ""
    assert draw(picture(200, 150), [chinese]).shape == (150, 200, 3)


def test_a_folder_that_is_gone_is_an_error_that_names_the_file(tmp_path, scene):
    sink = OverlayFormat().open(str(tmp_path / "gone"))
    (tmp_path / "gone").rmdir()
    with pytest.raises(DatasetError, match=r"Cannot write .*one\.overlay\.png.*run the same command again"):
        sink.write([as_result(*scene())])
