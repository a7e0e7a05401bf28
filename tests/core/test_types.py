"""Prompts, regions and perceptions: what is invalid is refused in words, what is valid survives every conversion."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import supervision
from hypothesis import given
from hypothesis import strategies as st

from pam_core.errors import MaskError, PromptError, SchemaError
from pam_core.masks import Mask
from pam_core.types import (
    Feedback,
    Language,
    ModelRef,
    Perception,
    Prompt,
    Region,
    Verdict,
    language_codes,
    regions_from_detections,
    regions_to_detections,
)
from tests.core import strategies
from tests.factories import OTHER_MODEL, make_perception, make_region

NAN, INF = float("nan"), float("inf")
FULL = Mask.from_array(np.ones((6, 8), bool))
WIDTH, HEIGHT = 8, 6
SAYS_BOTH = r"(?s)Got .*; wanted .*\."

UNUSABLE: dict[str, dict[str, Any]] = {
    "nothing": {},
    "nothing but empty tuples": {"points": (), "labels": ()},
    "point with NaN": {"points": ((NAN, 1),)},
    "point with infinity": {"points": ((1, INF),)},
    "point with minus infinity": {"points": ((-INF, 1),)},
    "point of one number": {"points": ((1,),)},
    "point of three numbers": {"points": ((1, 2, 3),)},
    "point of words": {"points": (("a", "b"),)},
    "point of nothing": {"points": ((None, None),)},
    "a bare number for a point": {"points": (3, 4)},
    "number too large for a float": {"points": ((10**400, 1),)},
    "label 2": {"points": ((1, 1),), "labels": (2,)},
    "label -1": {"points": ((1, 1),), "labels": (-1,)},
    "label as text": {"points": ((1, 1),), "labels": ("1",)},
    "too few labels": {"points": ((1, 1), (2, 2)), "labels": (1,)},
    "too many labels": {"points": ((1, 1),), "labels": (1, 0)},
    "labels without points": {"labels": (1,)},
    "only background": {"points": ((1, 1), (2, 2)), "labels": (0, 0)},
    "box with NaN": {"box": (0, 0, NAN, 2)},
    "box with infinity": {"box": (0, 0, INF, 2)},
    "box of three numbers": {"box": (0, 0, 2)},
    "box of five numbers": {"box": (0, 0, 2, 2, 2)},
    "box of words": {"box": ("a", "b", "c", "d")},
    "box of one number": {"box": 3},
    "box too large for a float": {"box": (0, 0, 10**400, 2)},
    "box without width": {"box": (2, 1, 2, 3)},
    "box without height": {"box": (1, 2, 3, 2)},
    "box a point": {"box": (1, 1, 1, 1)},
    "box right to left": {"box": (3, 1, 1, 3)},
    "box bottom to top": {"box": (1, 3, 3, 1)},
    "empty mask": {"mask": Mask.from_array(np.zeros((6, 8), bool))},
    "mask without pixels": {"mask": Mask.from_array(np.zeros((0, 8), bool))},
}


@pytest.mark.parametrize("said", UNUSABLE.values(), ids=UNUSABLE)
def test_what_cannot_be_used_anywhere_is_refused_when_made(said: dict[str, Any]) -> None:
    with pytest.raises(PromptError, match=SAYS_BOTH):
        Prompt(**said)


OUTSIDE: dict[str, Prompt] = {
    "point left": Prompt.at(-0.5, 1),
    "point above": Prompt.at(1, -0.001),
    "point on the right edge": Prompt.at(WIDTH, 1),
    "point on the lower edge": Prompt.at(1, HEIGHT),
    "point far off": Prompt.at(1e9, 1e9),
    "second point": Prompt(((1, 1), (99, 1))),
    "background point": Prompt(((1, 1), (1, 99)), (1, 0)),
    "box left": Prompt(box=(-1, 0, 2, 2)),
    "box above": Prompt(box=(0, -1, 2, 2)),
    "box right": Prompt(box=(0, 0, WIDTH + 0.5, 2)),
    "box below": Prompt(box=(0, 0, 2, HEIGHT + 0.5)),
    "box beside": Prompt(box=(20, 20, 30, 30)),
    "good point, box outside": Prompt(((1, 1),), box=(0, 0, 99, 99)),
    "mask turned": Prompt(mask=Mask.from_array(np.ones((8, 6), bool))),
    "mask larger": Prompt(mask=Mask.from_array(np.ones((7, 8), bool))),
    "mask smaller": Prompt(mask=Mask.from_array(np.ones((1, 1), bool))),
}


@pytest.mark.parametrize("prompt", OUTSIDE.values(), ids=OUTSIDE)
def test_what_does_not_fit_the_picture_is_refused(prompt: Prompt) -> None:
    with pytest.raises(PromptError, match=SAYS_BOTH):
        prompt.check(WIDTH, HEIGHT)


@pytest.mark.parametrize(
    "array",
    [
        np.ones((6, 8), np.uint8),
        np.ones((6, 8), np.float64),
        np.ones((6, 8, 3), bool),
        np.ones(48, bool),
        "mask.png",
        None,
        np.zeros((6, 8), bool),
    ],
    ids=["uint8", "float", "three dimensions", "one dimension", "a path", "nothing", "empty"],
)
def test_arrays_that_are_no_masks_are_refused(array: Any) -> None:
    with pytest.raises(PromptError, match=SAYS_BOTH):
        Prompt.from_mask(array)


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt.at(0, 0),
        Prompt.at(WIDTH - 1, HEIGHT - 1),
        Prompt.at(WIDTH - 1e-6, HEIGHT - 1e-6),
        Prompt(((0, 0), (7, 5)), (1, 0)),
        Prompt(((0, 0),), (0,), box=(0, 0, 1, 1)),
        Prompt(((0, 0),), (0,), mask=FULL),
        Prompt(box=(0, 0, WIDTH, HEIGHT)),
        Prompt(box=(7.5, 5.5, 8, 6)),
        Prompt(mask=FULL),
        Prompt(((3, 3),), (1,), (0, 0, 8, 6), FULL),
    ],
    ids=lambda prompt: str(prompt.to_json()),
)
def test_the_borders_of_the_picture_belong_to_it(prompt: Prompt) -> None:
    prompt.check(WIDTH, HEIGHT)


def test_points_are_foreground_unless_said_otherwise() -> None:
    assert Prompt(((1, 2), (3, 4))).labels == (1, 1)


@pytest.mark.parametrize(
    ("points", "labels"),
    [
        ([[1, 2], [3, 4]], [1, 0]),
        (np.array([[1, 2], [3, 4]]), (1, 0)),
        (np.array([[1, 2], [3, 4]], np.float32), np.array([1, 0])),
        (((1, 2), (3, 4)), tuple(np.array([1, 0]))),
        (((1, 2), (3, 4)), (True, False)),
        (((1, 2), (3, 4)), (1.0, 0.0)),
    ],
    ids=["lists", "array", "arrays", "numpy numbers", "booleans", "floats"],
)
def test_any_kind_of_number_makes_the_same_prompt(points: Any, labels: Any) -> None:
    """And one that can be written: numpy's numbers are no JSON, `true` is no label."""
    prompt = Prompt(points, labels)
    assert prompt == Prompt(((1.0, 2.0), (3.0, 4.0)), (1, 0))
    assert json.dumps(prompt.to_json()) == '{"points": [[1.0, 2.0, 1], [3.0, 4.0, 0]]}'


@given(strategies.prompts())
def test_prompts_survive_json(prompt: Prompt) -> None:
    assert Prompt.from_json(json.loads(json.dumps(prompt.to_json()))) == prompt


def test_a_prompt_from_elsewhere_is_read() -> None:
    data = {"image": "cat.jpg", "points": [[1, 2], [3, 4, 0]], "box": None, "mask": None, "note": "hm"}
    assert Prompt.from_json(data) == Prompt(((1, 2), (3, 4)), (1, 0))
    assert Prompt.from_json({"points": None, "box": [1, 2, 3, 4]}) == Prompt(box=(1, 2, 3, 4))


@given(strategies.regions)
def test_regions_survive_json(region: Region) -> None:
    data = json.loads(json.dumps(region.to_json(), ensure_ascii=False))
    assert Region.from_json(data) == region
    assert data["box"] == list(region.mask.box)
    assert data["area"] == region.mask.area


@given(strategies.feedbacks)
def test_feedback_survives_a_line(feedback: Feedback) -> None:
    line = feedback.to_line()
    assert line.endswith("\n") and line.count("\n") == 1
    assert Feedback.from_json(json.loads(line)) == feedback


@given(strategies.perceptions)
def test_perceptions_survive_a_line(perception: Perception) -> None:
    line = perception.to_line()
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert "\r" not in line
    assert Perception.from_json(json.loads(line)) == perception


@pytest.mark.parametrize("name", ["caf\udce9.jpg", "\udcff\udcfe.png"])
def test_a_file_name_that_is_not_utf8_survives_a_line(name: str) -> None:
    """Python reads such names with lone surrogates, which cannot be encoded; the line is written all the same."""
    line = make_perception(name).to_line().encode()
    assert Perception.from_json(json.loads(line)).image == name


def test_absent_values_are_null_and_names_are_stable() -> None:
    assert make_region().to_json() == {
        "schema": "pam.region/1",
        "box": [2, 1, 7, 4],
        "area": 15,
        "texts": {},
        "scores": {},
        "predicted_iou": None,
        "stability": None,
        "presence": None,
        "prompt": None,
        "track_id": None,
        "frame": None,
        "time": None,
        "model": {"name": "fake", "revision": "1", "description": "a made-up model that knows colours"},
        "mask": make_region().mask.to_coco(),
    }
    line = make_perception("a.png", make_region(), seconds={"read": 0.1}).to_line()
    assert list(json.loads(line)) == [
        "schema", "image", "width", "height", "model", "run", "error", "seconds", "regions",
    ]  # fmt: skip


def without(data: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name != key}


REGION, PERCEPTION = make_region().to_json(), make_perception().to_json()
FEEDBACK = Feedback("one.jpg", make_region(), Verdict.ACCEPTED).to_json()


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Region, {**REGION, "schema": "pam.region/2"}),
        (Region, without(REGION, "schema")),
        (Region, PERCEPTION),
        (Region, []),
        (Region, None),
        (Region, "text"),
        (Perception, {**PERCEPTION, "schema": "pam.perception/0"}),
        (Perception, without(PERCEPTION, "schema")),
        (Perception, REGION),
        (Perception, 3),
        (Perception, {**PERCEPTION, "regions": [{"schema": "else"}]}),
        (Feedback, REGION),
        (Feedback, {**FEEDBACK, "region": {"schema": "else"}}),
    ],
)
def test_another_schema_is_refused(kind: type[Region] | type[Perception] | type[Feedback], data: Any) -> None:
    with pytest.raises(SchemaError, match=r"Got .*; wanted 'pam\.(region|perception|feedback)/1'"):
        kind.from_json(data)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        *((Region, without(REGION, key)) for key in ("mask", "model")),
        *((Perception, without(PERCEPTION, key)) for key in ("image", "width", "height", "model", "regions")),
        (Region, {**REGION, "model": {"name": "x"}}),
        (Perception, {**PERCEPTION, "regions": None}),
        *((Feedback, without(FEEDBACK, key)) for key in ("image", "region", "verdict")),
        (Feedback, {**FEEDBACK, "verdict": "maybe"}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else f"{len(value)} fields",
)
def test_a_missing_field_is_a_schema_error_too(
    kind: type[Region] | type[Perception] | type[Feedback], data: Any
) -> None:
    with pytest.raises(SchemaError):
        kind.from_json(data)


def test_texts_are_added_and_replaced_one_by_one() -> None:
    region = make_region(texts={"label": {"en": "cat", "zh": "猫"}}, scores={"label": 0.5, "brief": 0.1})
    more = region.with_texts({"label": {"en": "tabby"}, "brief": {"zh": "一只猫"}}, {"label": 0.9})
    assert more.texts == {"label": {"en": "tabby", "zh": "猫"}, "brief": {"zh": "一只猫"}}
    assert more.scores == {"label": 0.9, "brief": 0.1}
    assert region.texts == {"label": {"en": "cat", "zh": "猫"}}
    assert region.scores == {"label": 0.5, "brief": 0.1}
    assert (more.label, more.text("brief"), more.text("brief", "zh")) == ("tabby", None, "一只猫")


def test_texts_given_are_copied() -> None:
    texts = {"label": {"en": "cat"}}
    region = make_region().with_texts(texts)
    texts["label"]["en"] = "dog"
    assert region.label == "cat"


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [({}, None), ({"zh": "猫"}, "猫"), ({"zh": "猫", "en": "cat"}, "cat"), ({"en": "", "zh": "猫"}, "猫")],
)
def test_the_label_is_english_where_there_is_one(labels: dict[str, str], wanted: str | None) -> None:
    found = make_region(texts={"label": labels}).label
    assert (found or None) == wanted


def with_size(shape: tuple[int, int]) -> st.SearchStrategy[list[Region]]:
    masks = strategies.arrays_of(shape).map(Mask.from_array)
    return st.lists(st.tuples(strategies.regions, masks).map(lambda pair: _with_mask(*pair)), max_size=3)


def _with_mask(region: Region, mask: Mask) -> Region:
    return Region(**{**vars(region), "mask": mask})


@given(strategies.shapes.flatmap(with_size))
def test_regions_come_back_from_detections_unchanged(regions: list[Region]) -> None:
    detections = regions_to_detections(regions)
    assert len(detections) == len(regions)
    assert regions_from_detections(detections, OTHER_MODEL) == regions


def test_detections_hold_what_others_look_for() -> None:
    first = make_region(predicted_iou=0.5, track_id=3, texts={"label": {"en": "cat"}})
    second = make_region(np.eye(6, 8, dtype=bool), track_id=4)
    detections = regions_to_detections([first, second])
    assert detections.xyxy.tolist() == [[2, 1, 7, 4], [0, 0, 6, 6]]
    assert np.array_equal(detections.mask, [first.mask.array, second.mask.array])
    assert detections.confidence.tolist() == [0.5, 0]
    assert detections.tracker_id.tolist() == [3, 4]
    assert detections.data["class_name"].tolist() == ["cat", ""]
    assert regions_to_detections([first, make_region()]).tracker_id is None


def test_filtered_and_reordered_detections_keep_their_regions() -> None:
    regions = [make_region(track_id=i, texts={"label": {"en": name}}) for i, name in enumerate(["a", "bb", "c"])]
    detections = regions_to_detections(regions)
    assert regions_from_detections(detections[[2, 0]], OTHER_MODEL) == [regions[2], regions[0]]
    merged = supervision.Detections.merge([detections[[0]], detections[[1, 2]]])
    assert regions_from_detections(merged, OTHER_MODEL) == regions


def test_detections_made_elsewhere_become_regions() -> None:
    masks = np.zeros((2, 6, 8), bool)
    masks[0, :2], masks[1, 3:, 4:] = True, True
    detections = supervision.Detections(
        xyxy=np.array([[0, 0, 8, 2], [4, 3, 8, 6]], np.float32),
        mask=masks,
        confidence=np.array([0.25, 0.75], np.float32),
        tracker_id=np.array([5, 6]),
        data={"class_name": np.array(["dog", ""])},
    )
    found = regions_from_detections(detections, OTHER_MODEL)
    assert [region.mask for region in found] == [Mask.from_array(mask) for mask in masks]
    assert [region.label for region in found] == ["dog", None]
    assert [(region.predicted_iou, region.track_id) for region in found] == [(0.25, 5), (0.75, 6)]
    assert {region.model for region in found} == {OTHER_MODEL}
    for region in found:
        assert Region.from_json(json.loads(json.dumps(region.to_json()))) == region


def test_detections_with_masks_only_become_regions() -> None:
    masks = np.ones((1, 6, 8), np.uint8)
    found = regions_from_detections(supervision.Detections(np.zeros((1, 4)), mask=masks), OTHER_MODEL)
    assert found == [Region(FULL, OTHER_MODEL)]


def test_detections_without_masks_are_refused() -> None:
    with pytest.raises(MaskError, match="wanted"):
        regions_from_detections(supervision.Detections(np.zeros((1, 4))), OTHER_MODEL)
    assert regions_from_detections(supervision.Detections.empty(), OTHER_MODEL) == []


def test_language_codes() -> None:
    assert language_codes(["zh", Language.EN, "zh", "en", Language.ZH]) == ("zh", "en")


def test_a_model_ref_needs_no_description() -> None:
    assert ModelRef.from_json({"name": "a", "revision": "1"}) == ModelRef("a", "1")
