"""The operators on a real FiftyOne: what they write, what they leave alone, and how they go on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.factories import FakePlugin, shapes
from tests.fiftyone_plugin.conftest import URI, MakeDataset

COLOURS = ["red", "green", "blue"]


def execute(name: str, view: Any, **params: Any) -> dict[str, Any]:
    """Run an operator of ours as the App does and return its result."""
    import fiftyone.operators as foo

    context = {"view": view.view(), "params": {"model": "fake", **params}}
    result = foo.execute_operator(f"{URI}/{name}", context)
    return list(result.result)[-1] if hasattr(result.result, "__next__") else result.result


def test_the_plugin_loads_without_errors() -> None:
    from fiftyone.plugins.context import build_plugin_contexts

    contexts = {context.name: context.errors for context in build_plugin_contexts() if context.name == URI}
    assert contexts == {URI: []}


def test_boxes_become_regions_with_masks_and_words(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    dataset = make_dataset(2)
    execute("perceive_regions", dataset, prompt_field="boxes", languages=["en", "zh"], tasks=["label", "brief"])
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
        assert sample["boxes"].detections[0].label == "thing"
    assert dataset.count("regions.detections") == 6
    assert dataset.count_values("regions.detections.caption")
    assert dataset.list_runs() == ["pam_regions"]
    assert dataset.load_run_results("pam_regions").perceived == 2
    with pytest.raises(ValueError):
        dataset.get_run_info("other")
