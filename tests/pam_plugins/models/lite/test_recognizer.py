"""The detector's tiles, and detections in them."""

from __future__ import annotations

import pytest
import torch

from pam_core.media.images import read_picture
from pam_plugins.models.lite.naming import box_iou
from pam_plugins.models.lite.nouns import Nouns
from pam_plugins.models.lite.recognizer import Recognizer, _tiles
from tests.paths import PHOTOS


@pytest.mark.parametrize(("width", "height"), [(1, 1), (416, 300), (417, 3), (1024, 683)])
def test_tiles_cover_the_picture_and_stay_in_it(width: int, height: int) -> None:
    tiles = _tiles(width, height)
    assert tiles[0] == (0, 0, width, height)
    assert len(tiles) == (1 if width <= 416 else 5)
    for left, top, right, bottom in tiles:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
    assert {(0, 0), (width, height)} <= {tile[:2] for tile in tiles} | {tile[2:] for tile in tiles}


def test_small_objects_are_detected_in_tiles_and_none_is_cut_off() -> None:
    nouns = Nouns.load()
    detections = Recognizer.load(torch.device("cpu"), nouns).detect(read_picture(PHOTOS / "street_sign.jpg"))
    woman = (672.0, 362.0, 800.0, 600.0)
    people = [one for one in detections if nouns[one.synset].name == "person" and box_iou(one.box, woman) > 0.8]
    assert max(one.score for one in people) > 0.7
    cars = [one.box for one in detections if nouns[one.synset].name == "car"]
    assert all(box_iou(box, (398.0, 420.0, 703.0, 577.0)) > 0.5 for box in cars if box[0] < 703 and box[2] > 398)
