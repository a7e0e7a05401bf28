"""Masks from prompts, with the weights that ship, on a real photograph (a coffee cup on a table, 600 x 400)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pam_core.masks import BoolArray, Box, Mask
from pam_core.media.images import read_picture
from pam_core.types import Prompt
from pam_plugins.models.lite.naming import box_iou
from pam_plugins.models.lite.segmenter import BATCH, Candidate, Segmenter, _low_box, _prompt_tensors
from tests.paths import PHOTOS

PHOTO = PHOTOS / "coffee.jpg"


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.load(torch.device("cpu"))


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return read_picture(PHOTO)


@pytest.fixture(scope="module")
def features(segmenter: Segmenter, picture: np.ndarray) -> torch.Tensor:
    return segmenter.embed(picture)


@pytest.fixture
def segment(segmenter: Segmenter, features: torch.Tensor, picture: np.ndarray):
    def segment(*prompts: Prompt) -> list[Candidate]:
        return segmenter.segment(features, picture.shape[:2], prompts)

    return segment


def iou(a: BoolArray, b: BoolArray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def cup(picture: np.ndarray) -> tuple[int, int]:
    return round(picture.shape[1] * 0.5), round(picture.shape[0] * 0.45)


def boxes_of_a_click(segmenter: Segmenter, features: torch.Tensor, picture: np.ndarray) -> list[Box]:
    """The boxes of the three masks that a click on the cup may mean."""
    size = (picture.shape[0], picture.shape[1])
    with torch.inference_mode():
        points, labels, _ = _prompt_tensors([Prompt.at(*cup(picture))], size)
        logits, _ = segmenter.decoder(features, points, labels, None)
    return [_low_box(logits[0, token] > 0, size) for token in (1, 2, 3)]


def test_a_click_is_in_its_mask(segment, picture: np.ndarray) -> None:
    x, y = cup(picture)
    (candidate,) = segment(Prompt.at(x, y))
    assert candidate.mask.shape == picture.shape[:2]
    assert candidate.mask[y, x]
    assert 0 <= candidate.predicted_iou <= 1
    assert 0 <= candidate.stability <= 1


def test_the_mask_that_fills_the_box_of_a_sure_object_is_chosen(
    segmenter: Segmenter, features: torch.Tensor, picture: np.ndarray
) -> None:
    """Whichever of the three masks the object is; a score of 0 changes nothing."""
    click, size = Prompt.at(*cup(picture)), picture.shape[:2]
    (plain,) = segmenter.segment(features, size, [click])
    boxes = boxes_of_a_click(segmenter, features, picture)
    (unsure,) = segmenter.segment(features, size, [click], [(boxes[0], 0.0), (boxes[2], 0.0)])
    assert iou(unsure.mask, plain.mask) == 1
    chosen = []
    for box in boxes:
        (sure,) = segmenter.segment(features, size, [click], [(box, 1.0)])
        chosen.append(box_iou(Mask.from_array(sure.mask).box, box) > 0.9)
    assert sum(chosen) >= 2, "the call is not close for the third"


def test_a_box_gives_what_fills_it(segment, picture: np.ndarray) -> None:
    (clicked,) = segment(Prompt.at(*cup(picture)))
    (boxed,) = segment(Prompt(box=Mask.from_array(clicked.mask).box))
    assert iou(clicked.mask, boxed.mask) > 0.8


def test_a_point_outside_takes_a_part_away_and_a_mask_can_be_refined(segment, picture: np.ndarray) -> None:
    x, y = cup(picture)
    (large,) = segment(Prompt.at(x, y))
    ys, xs = np.nonzero(large.mask)
    outside = (int(xs[ys.argmax()]), int(ys.max()) - 2)
    (refined,) = segment(Prompt(((x, y), outside), (1, 0)))
    assert refined.mask[y, x]
    assert not refined.mask[outside[1], outside[0]]
    (again,) = segment(Prompt(((x, y),), (1,), mask=Mask.from_array(refined.mask)))
    assert iou(again.mask, refined.mask) > 0.8


def test_many_prompts_of_all_kinds_are_answered_as_each_alone(segment, picture: np.ndarray) -> None:
    height, width = picture.shape[:2]
    points = [(width * (i % 7 + 1) / 8, height * (i // 7 + 1) / 5) for i in range(BATCH + 3)]
    prompts = [Prompt.at(*point) for point in points]
    prompts[4] = Prompt(box=(width * 0.2, height * 0.2, width * 0.7, height * 0.8))
    prompts[9] = Prompt((points[9], points[2]), (1, 0))
    together = segment(*prompts)
    for i in (0, 4, 9, BATCH + 2):
        (alone,) = segment(prompts[i])
        assert iou(together[i].mask, alone.mask) > 0.99
        assert together[i].predicted_iou == pytest.approx(alone.predicted_iou, abs=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (400, 3), (37, 53)])
def test_pictures_of_any_shape(segmenter: Segmenter, size: tuple[int, int]) -> None:
    picture = np.full((*size, 3), 200, np.uint8)
    (candidate,) = segmenter.segment(segmenter.embed(picture), size, [Prompt.at(0, 0)])
    assert candidate.mask.shape == size
