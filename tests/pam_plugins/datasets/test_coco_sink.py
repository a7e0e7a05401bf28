"""coco.json as pycocotools reads it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from pam_core.errors import DatasetError
from pam_plugins.datasets.coco import CocoSinkFormat
from tests.factories import as_result
from tests.pam_plugins.render.made_up import disc, perception, region


def export(folder, *pairs):
    sink = CocoSinkFormat().open(str(folder))
    sink.write([as_result(*pair) for pair in pairs])
    sink.close()
    return folder / "coco.json"


def test_pycocotools_reads_it_and_the_masks_are_equal(tmp_path, scene):
    shown, pixels = scene()
    coco = COCO(export(tmp_path, (shown, pixels), scene("two.jpg")))
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["cats/one.jpg", "two.jpg"]
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert len(annotations) == len(shown.regions)
    for annotation, original in zip(annotations, shown.regions, strict=True):
        assert np.array_equal(coco.annToMask(annotation).astype(bool), original.mask.array)
        x1, y1, x2, y2 = original.box
        assert annotation["bbox"] == [x1, y1, x2 - x1, y2 - y1]
        assert annotation["area"] == original.mask.area
        assert annotation["iscrowd"] == 0
        assert annotation["score"] == original.scores["label"]
        assert coco.loadCats([annotation["category_id"]])[0]["name"] == original.label


def test_texts_are_attributes(tmp_path, scene):
    annotation = json.loads(export(tmp_path, scene()).read_text("utf-8"))["annotations"][0]
    assert annotation["attributes"]["brief"] == "A cat on a mat."
    assert annotation["attributes"]["brief_zh"] == "垫子上的猫。"


def test_one_category_for_labels_that_differ_in_case(tmp_path):
    mask = disc(40, 30, 20, 15, 8)
    labels = [{"label": {"en": "Cat"}}, {"label": {"en": "cat"}}, {}, {"label": {"zh": "狗"}}]
    regions = [region(mask, texts) for texts in labels]
    data = json.loads(export(tmp_path, (perception("a.jpg", 40, 30, *regions), None)).read_text("utf-8"))
    assert [category["name"] for category in data["categories"]] == ["Cat", "unlabelled", "狗"]
    assert [annotation["category_id"] for annotation in data["annotations"]] == [1, 1, 2, 3]


def test_the_score_falls_back_to_the_mask_and_may_be_absent(tmp_path):
    mask = disc(40, 30, 20, 15, 8)
    regions = [region(mask, scores={}), region(mask, scores={}, predicted_iou=None)]
    data = json.loads(export(tmp_path, (perception("a.jpg", 40, 30, *regions), None)).read_text("utf-8"))
    assert data["annotations"][0]["score"] == 0.93
    assert "score" not in data["annotations"][1]


def test_failed_pictures_are_named_and_not_taken_for_empty_ones(tmp_path, scene):
    bad = perception("bad.jpg", 0, 0, error="bad.jpg: damaged")
    data = json.loads(export(tmp_path, (bad, None), scene()).read_text("utf-8"))
    assert [image["file_name"] for image in data["images"]] == ["cats/one.jpg"]
    assert data["info"]["failed"] == [{"file_name": "bad.jpg", "error": "bad.jpg: damaged"}]


def test_empty_masks_and_file_names_that_are_not_utf8(tmp_path):
    nothing = region(np.zeros((30, 40), dtype=bool))
    data = json.loads(export(tmp_path, (perception("b\udcffd.jpg", 40, 30, nothing), None)).read_text("utf-8"))
    assert data["annotations"] == []
    assert data["images"][0]["file_name"] == "b\udcffd.jpg"


def test_nothing_replaces_the_old_file_before_close(tmp_path, scene):
    old = tmp_path / "coco.json"
    old.write_text("old")
    sink = CocoSinkFormat().open(str(tmp_path))
    sink.write([as_result(*scene())])
    assert old.read_text() == "old"
    sink.close()
    assert json.loads(old.read_text("utf-8"))["images"]
    assert [path.name for path in tmp_path.iterdir()] == ["coco.json"]


@pytest.mark.parametrize(("address", "file"), [("out", "out/coco.json"), ("new/a.json", "new/a.json")])
def test_a_folder_or_a_file(tmp_path, scene, address, file):
    sink = CocoSinkFormat().open(str(tmp_path / address))
    sink.write([as_result(*scene())])
    sink.close()
    assert json.loads((tmp_path / file).read_text("utf-8"))["images"]


def test_a_folder_that_is_gone_is_an_error_that_names_the_file(tmp_path, scene):
    sink = CocoSinkFormat().open(str(tmp_path / "gone"))
    (tmp_path / "gone").rmdir()
    with pytest.raises(DatasetError, match=r"Cannot write .*coco\.json.*run the same command again"):
        sink.close()
