"""Regions to labels and back, and labels to prompts, for any geometry."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pam_core.errors import PromptError
from pam_core.masks import Mask
from pam_core.types import ModelRef, Prompt, Region

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)).filter(lambda mask: mask.any())
words = st.text(min_size=1, max_size=20)
answers = st.dictionaries(
    st.sampled_from(["label", "explanation", "brief", "detailed", "text"]),
    st.dictionaries(st.sampled_from(["en", "zh"]), words, min_size=1),
)


@given(masks, answers, st.floats(0, 1), st.none() | st.integers(0, 99))
def test_a_region_comes_back_unchanged(mask: np.ndarray, texts: Any, score: float, track: int | None) -> None:
    from fiftyone_plugin.convert import detection_of, region_of

    if "label" in texts:
        texts["label"].setdefault("en", "thing")  # a Detection's label is the English one
    region = Region(
        Mask.from_array(mask),
        ModelRef("lite", "3"),
        predicted_iou=0.5,
        stability=score,
        texts=texts,
        scores={"label": score},
        track_id=track,
    )
    detection = detection_of(region)
    again = region_of(detection, mask.shape[1], mask.shape[0])
    assert again == region


@given(masks, st.integers(1, 5))
def test_a_mask_of_another_resolution_fills_its_box(mask: np.ndarray, factor: int) -> None:
    import fiftyone as fo

    from fiftyone_plugin.convert import mask_of

    height, width = mask.shape
    label = fo.Detection(bounding_box=[0, 0, 1, 1], mask=mask)
    found = mask_of(label, width * factor, height * factor)
    assert found is not None
    np.testing.assert_array_equal(found.array, np.kron(mask, np.ones((factor, factor), bool)))


@given(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5), st.floats(0, 1), st.floats(0, 1))
def test_boxes_are_cut_at_the_edges_or_refused(x: float, y: float, w: float, h: float) -> None:
    import fiftyone as fo

    from fiftyone_plugin.convert import prompt_of

    label = fo.Detection(bounding_box=[x, y, w, h])
    try:
        prompt = prompt_of(label, 64, 48)
    except PromptError:
        assert min(x + w, 1) <= max(x, 0) or min(y + h, 1) <= max(y, 0) or min(w, h) < 1e-9
        return
    prompt.check(64, 48)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=4))
def test_points_within_the_picture_are_clicks_within_it(points: list[tuple[float, float]]) -> None:
    import fiftyone as fo

    from fiftyone_plugin.convert import prompt_of

    prompt = prompt_of(fo.Keypoint(points=points), 64, 48)
    prompt.check(64, 48)
    assert len(prompt.points) == len(points)


def test_missing_points_are_left_out_and_none_is_an_error() -> None:
    import fiftyone as fo

    from fiftyone_plugin.convert import prompt_of

    nothing = (float("nan"), float("nan"))
    assert prompt_of(fo.Keypoint(points=[nothing, (0.5, 0.5)]), 10, 10).points == ((5, 5),)
    with pytest.raises(PromptError, match="empty prompt"):
        prompt_of(fo.Keypoint(points=[nothing]), 10, 10)


def test_a_ring_within_a_ring_is_a_hole() -> None:
    import fiftyone as fo

    from fiftyone_plugin.convert import mask_of

    def square(low: float, high: float) -> list[tuple[float, float]]:
        return [(low, low), (high, low), (high, high), (low, high)]

    line = fo.Polyline(points=[square(0.1, 0.9), square(0.4, 0.6)], closed=True, filled=True)
    mask = mask_of(line, 100, 100)
    assert mask is not None
    assert mask.array[20, 20] and not mask.array[50, 50] and not mask.array[5, 5]


def test_a_line_that_is_open_is_a_click_on_each_of_its_points() -> None:
    import fiftyone as fo

    from fiftyone_plugin.convert import prompt_of

    line = fo.Polyline(points=[[(0.1, 0.2), (0.5, 0.5)]], closed=False, filled=False)
    assert prompt_of(line, 100, 50) == Prompt(points=((10, 10), (50, 25)))


def test_a_prompt_in_words_names_its_mask_only() -> None:
    from fiftyone_plugin.convert import prompt_to_text

    prompt = Prompt(points=((1, 2),), mask=Mask.from_array(np.eye(4, dtype=bool)))
    assert json.loads(prompt_to_text(prompt)) == {"points": [[1, 2, 1]], "mask": "mask"}
