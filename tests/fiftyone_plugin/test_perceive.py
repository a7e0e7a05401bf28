"""The operators on a real FiftyOne: what they write, what they leave alone, and how they go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.factories import FakePlugin, shapes
from tests.fiftyone_plugin.conftest import URI, MakeDataset

COLOURS = ["red", "green", "blue"]


def perceive(view: Any, **settings: Any) -> dict[str, Any]:
    """Run the operator from Python, as a user does."""
    import fiftyone.operators as foo

    return foo.get_operator(f"{URI}/perceive_regions")(view, model="fake", **settings)


def caption(view: Any, field: str, **settings: Any) -> dict[str, Any]:
    import fiftyone.operators as foo

    return foo.get_operator(f"{URI}/caption_regions")(view, field, model="fake", **settings)


def labels(dataset: Any, field: str = "regions") -> list[list[str]]:
    dataset.reload()
    return dataset.values(f"{field}.detections.label")


def test_the_plugin_loads_without_errors() -> None:
    from fiftyone.plugins.context import build_plugin_contexts

    contexts = {context.name: context.errors for context in build_plugin_contexts() if context.name == URI}
    assert contexts == {URI: []}


def test_agents_find_the_skill_and_what_each_operator_may_do() -> None:
    import fiftyone.operators as foo
    from fiftyone import plugins

    [skill] = plugins.list_skills(plugin=URI)
    assert skill.name == "understand-regions" and "caption regions" in skill.description
    for name in ("perceive_regions", "caption_regions", "track_and_caption", "export_feedback"):
        assert f"{URI}/{name}" in skill.content
        assert foo.get_operator(f"{URI}/{name}").config.risk_level.value in ("low", "medium")


# Perceive


def test_boxes_become_regions_with_masks_and_words(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    dataset = make_dataset(2)
    counts = perceive(dataset, prompt_field="boxes", languages=["en", "zh"], tasks=["label", "brief"])
    assert (counts["done"], counts["perceived"], counts["regions"], counts["failed"]) == (2, 2, 6, 0)
    dataset.reload()
    _, known = shapes(120, 90, 3)
    for sample in dataset:
        found = sample["regions"].detections
        assert [label.label for label in found] == COLOURS
        for label, shape in zip(found, known, strict=True):
            x1, y1, x2, y2 = shape.box
            np.testing.assert_allclose(
                label.bounding_box, [x1 / 120, y1 / 90, (x2 - x1) / 120, (y2 - y1) / 90], atol=1e-9
            )
            np.testing.assert_array_equal(label.get_mask(), shape.mask[y1:y2, x1:x2])
            assert label["model"] == "fake 1"
            assert label["caption"] and label["caption_zh"] and label["label_zh"]
            assert label["prompt"].startswith('{"box"')
        assert sample["regions_error"] is None and sample["regions_run"]
        assert sample["regions_seconds"] > 0
        assert sample["boxes"].detections[0].label == "thing"


def test_attributes_can_be_filtered_and_the_run_is_on_record(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    import fiftyone as fo

    dataset = make_dataset(2)
    perceive(dataset, prompt_field="boxes")
    dataset.reload()
    red = dataset.filter_labels("regions", fo.ViewField("caption").contains_str("red"))
    assert red.count("regions.detections") == 2
    assert "regions.detections.explanation" in dataset.get_field_schema(flat=True)
    assert dataset.list_runs() == ["pam_regions"]
    assert dataset.get_run_info("pam_regions").config.model == "fake 1"
    assert dataset.load_run_results("pam_regions").perceived == 2


def test_without_prompts_everything_is_found(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    dataset = make_dataset(1, boxes=False)
    perceive(dataset)
    assert set(COLOURS) <= set(labels(dataset)[0])


def test_a_view_limits_the_work_and_a_dataset_is_a_view_too(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    dataset = make_dataset(4)
    assert perceive(dataset[1:3], prompt_field="boxes")["done"] == 2
    assert [bool(found) for found in labels(dataset)] == [False, True, True, False]


def test_a_view_that_the_results_change_is_worked_through(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    import fiftyone as fo

    dataset = make_dataset(4)
    dataset.add_sample_field("regions", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    empty = dataset.exists("regions", False)
    assert perceive(empty, prompt_field="boxes")["done"] == 4
    assert labels(dataset) == [COLOURS] * 4


def test_only_the_selected_labels_are_prompts(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    import fiftyone.operators as foo

    dataset = make_dataset(2)
    sample = dataset.last()
    chosen = sample["boxes"].detections[1]
    context = {
        "view": dataset.view(),
        "params": {"model": "fake", "prompt_field": "boxes"},
        "selected_labels": [{"sample_id": sample.id, "label_id": chosen.id, "field": "boxes"}],
    }
    foo.execute_operator(f"{URI}/perceive_regions", context)
    assert labels(dataset) == [None, ["green"]]


def test_keypoints_and_outlines_are_prompts(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    import fiftyone as fo

    dataset = make_dataset(1)
    sample = dataset.first()
    _, known = shapes(120, 90, 3)
    points = [((x + 0.5) / 120, (y + 0.5) / 90) for x, y in (shape.centre for shape in known)]
    nothing = float("nan")
    sample["clicks"] = fo.Keypoints(keypoints=[fo.Keypoint(points=[points[0], (nothing, nothing)])])
    x1, y1, x2, y2 = known[2].box
    ring = [(x1 / 120, y1 / 90), (x2 / 120, y1 / 90), (x2 / 120, y2 / 90), (x1 / 120, y2 / 90)]
    sample["outlines"] = fo.Polylines(polylines=[fo.Polyline(points=[ring], closed=True, filled=True)])
    sample.save()
    perceive(dataset, prompt_field="clicks", field="clicked")
    perceive(dataset, prompt_field="outlines", field="outlined")
    assert labels(dataset, "clicked") == [["red"]]
    assert labels(dataset, "outlined") == [["blue"]]


# What is there already


def test_skip_leaves_results_and_the_work_of_others_as_they_are(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    import fiftyone as fo

    dataset = make_dataset(3)
    sample = dataset.first()
    sample["regions"] = fo.Detections(detections=[fo.Detection(label="by hand", bounding_box=[0, 0, 0.5, 0.5])])
    sample.save()
    counts = perceive(dataset, prompt_field="boxes")
    assert (counts["perceived"], counts["skipped"]) == (2, 1)
    assert labels(dataset) == [["by hand"], COLOURS, COLOURS]
    assert perceive(dataset, prompt_field="boxes", tasks=["label"])["skipped"] == 3


def test_overwrite_does_all_anew_and_only_once(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    dataset = make_dataset(3)
    perceive(dataset[:2], prompt_field="boxes")
    counts = perceive(dataset, prompt_field="boxes", existing="overwrite", tasks=["label"])
    assert (counts["perceived"], counts["resumed"]) == (3, 0)
    again = perceive(dataset, prompt_field="boxes", existing="overwrite", tasks=["label"])
    assert (again["perceived"], again["resumed"]) == (0, 3)
    assert labels(dataset) == [COLOURS] * 3


def test_append_adds_and_never_twice(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    import fiftyone as fo

    dataset = make_dataset(1)
    sample = dataset.first()
    sample["regions"] = fo.Detections(detections=[fo.Detection(label="by hand", bounding_box=[0, 0, 0.5, 0.5])])
    sample.save()
    for _ in range(2):
        perceive(dataset, prompt_field="boxes", existing="append")
    assert labels(dataset) == [["by hand", *COLOURS]]


def test_captions_added_between_do_not_make_append_do_it_twice(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    dataset = make_dataset(1)
    perceive(dataset, prompt_field="boxes", existing="append")
    caption(dataset, "regions", existing="overwrite")
    assert perceive(dataset, prompt_field="boxes", existing="append")["resumed"] == 1
    assert labels(dataset) == [COLOURS]


def test_a_run_with_nothing_to_do_leaves_the_record_of_the_work(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    dataset = make_dataset(2)
    perceive(dataset, prompt_field="boxes", existing="overwrite")
    perceive(dataset, prompt_field="boxes", existing="overwrite")
    perceive(dataset, prompt_field="boxes")
    dataset.reload()
    dataset.clear_cache()
    assert dataset.load_run_results("pam_regions").perceived == 2


# Geometry


@pytest.mark.parametrize("kind", ["mask_path", "polyline"])
def test_masks_as_files_and_as_outlines(
    fake: FakePlugin, make_dataset: MakeDataset, tmp_path: Path, kind: str
) -> None:
    from fiftyone_plugin.convert import mask_of

    dataset = make_dataset(1)
    perceive(dataset, prompt_field="boxes", geometry=kind, mask_folder=str(tmp_path / "masks"))
    dataset.reload()
    _, known = shapes(120, 90, 3)
    value = dataset.first()["regions"]
    found = value[value._LABEL_LIST_FIELD]
    assert [label.label for label in found] == COLOURS
    for label, shape in zip(found, known, strict=True):
        mask = mask_of(label, 120, 90)
        assert mask is not None
        overlap = (mask.array & shape.mask).sum() / (mask.array | shape.mask).sum()
        assert overlap == 1 if kind == "mask_path" else overlap > 0.85
        assert label["caption"] and label["model"] == "fake 1"
    files = list((tmp_path / "masks").glob("*")) if kind == "mask_path" else []
    assert len(files) == (3 if kind == "mask_path" else 0)


def test_masks_too_large_for_the_database_go_to_files(tmp_path: Path) -> None:
    from fiftyone_plugin import convert as module
    from fiftyone_plugin.convert import Geometry
    from pam_core.masks import Mask
    from tests.factories import make_region

    noise = np.random.default_rng(0).random((2400, 2400)) > 0.5
    regions = [make_region(Mask.from_array(noise).array) for _ in range(20)]
    assert 20 * noise.size // 8 > module.DOCUMENT_BYTES
    large = Geometry("mask", tmp_path).labels(regions, "sample")
    assert all(label.mask is None and label.mask_path for label in large.detections)
    np.testing.assert_array_equal(large.detections[3].get_mask() > 0, noise[_rows(noise), :][:, _columns(noise)])
    smooth = make_region(np.ones((4000, 4000), bool))
    assert Geometry("mask", tmp_path).labels([smooth], "sample").detections[0].mask is not None


def _rows(mask: np.ndarray) -> slice:
    there = np.flatnonzero(mask.any(axis=1))
    return slice(int(there[0]), int(there[-1]) + 1)


def _columns(mask: np.ndarray) -> slice:
    return _rows(mask.T)


# Caption


def test_captioning_keeps_every_box_mask_and_label(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    dataset = make_dataset(2)
    before = [sample["boxes"].to_dict()["detections"] for sample in dataset]
    caption(dataset, "boxes", languages=["en", "zh"], tasks=["label", "brief"])
    dataset.reload()
    for sample, old in zip(dataset, before, strict=True):
        for label, was in zip(sample["boxes"].detections, old, strict=True):
            assert (label.id, label.label, label.bounding_box, label.mask) == (
                str(was["_id"]), "thing", was["bounding_box"], None,
            )  # fmt: skip
        assert [label["perceived_label"] for label in sample["boxes"].detections] == COLOURS
        assert all(label["caption"] and label["caption_zh"] for label in sample["boxes"].detections)


def test_a_mask_that_is_there_is_described_as_it_is(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    dataset = make_dataset(1)
    sample = dataset.first()
    half = np.zeros((10, 10), bool)
    half[:, :5] = True
    sample["boxes"].detections[0].mask = half
    sample.save()
    caption(dataset, "boxes")
    dataset.reload()
    np.testing.assert_array_equal(dataset.first()["boxes"].detections[0].mask, half)
    assert fake.model.segments == 2


def test_labels_with_words_are_skipped_or_written_anew(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    dataset = make_dataset(1)
    caption(dataset, "boxes", tasks=["label"])
    assert fake.model.describes == 3
    again = caption(dataset, "boxes", tasks=["brief"])
    assert (again["done"], again["skipped"], again["perceived"]) == (1, 1, 0)
    assert fake.model.describes == 3
    caption(dataset, "boxes", tasks=["brief"], existing="overwrite", relabel=True)
    assert fake.model.describes == 6
    assert labels(dataset, "boxes") == [["thing"] * 3]
    caption(dataset, "boxes", tasks=["label"], existing="overwrite", relabel=True)
    assert labels(dataset, "boxes") == [COLOURS]
