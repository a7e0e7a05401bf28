"""Masks from prompts, with the weights that ship, on a real photograph (a coffee cup on a table, 600 x 400)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pam_core.masks import BoolArray, Mask
from pam_core.media.images import read_picture
from pam_core.types import Prompt
from pam_plugins.models.lite.segmenter import BATCH, Candidate, Segmenter
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
def find(segmenter: Segmenter, features: torch.Tensor, picture: np.ndarray):
    def find(*prompts: Prompt, keep: int = 1) -> list[list[Candidate]]:
        return segmenter.segment(features, picture.shape[:2], prompts, keep)

    return find


def iou(a: BoolArray, b: BoolArray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def cup(picture: np.ndarray) -> tuple[int, int]:
    return round(picture.shape[1] * 0.5), round(picture.shape[0] * 0.45)


def test_a_click_has_three_candidates_and_each_has_the_click(find, picture: np.ndarray) -> None:
    x, y = cup(picture)
    (candidates,) = find(Prompt.at(x, y), keep=3)
    assert len(candidates) == 3
    for candidate in candidates:
        assert candidate.mask.shape == picture.shape[:2]
        assert candidate.mask[y, x]
        assert 0 <= candidate.predicted_iou <= 1
        assert 0 <= candidate.stability <= 1


def test_a_mask_that_fills_the_box_of_a_sure_object_wins_a_close_call(
    segmenter: Segmenter, features: torch.Tensor, picture: np.ndarray
) -> None:
    click = Prompt.at(*cup(picture))
    ((first, second, _),) = segmenter.segment(features, picture.shape[:2], [click], 3)
    assert first.predicted_iou - second.predicted_iou < 0.04, "the call is not close"
    box = Mask.from_array(second.mask).box
    for score, wanted in ((1.0, second), (0.0, first)):
        ((found,),) = segmenter.segment(features, picture.shape[:2], [click], 1, [(box, score)])
        assert iou(found.mask, wanted.mask) == 1


def test_a_box_gives_what_fills_it(find, picture: np.ndarray) -> None:
    x, y = cup(picture)
    ((clicked,),) = find(Prompt.at(x, y))
    x1, y1, x2, y2 = Mask.from_array(clicked.mask).box
    ((boxed,),) = find(Prompt(box=(x1, y1, x2, y2)))
    assert iou(clicked.mask, boxed.mask) > 0.8


def test_a_point_outside_takes_a_part_away_and_a_mask_can_be_refined(find, picture: np.ndarray) -> None:
    x, y = cup(picture)
    (candidates,) = find(Prompt.at(x, y), keep=3)
    large = max((c.mask for c in candidates), key=lambda mask: mask.sum())
    small = min((c.mask for c in candidates), key=lambda mask: mask.sum())
    only_large = np.argwhere(large & ~small)
    assert len(only_large) > 100, "the click is not ambiguous, so there is nothing to take away"
    outside = only_large[len(only_large) // 2]
    ((refined,),) = find(Prompt(((x, y), (int(outside[1]), int(outside[0]))), (1, 0)))
    assert refined.mask[y, x]
    assert not refined.mask[outside[0], outside[1]]
    ((again,),) = find(Prompt(((x, y),), (1,), mask=Mask.from_array(small)))
    assert iou(again.mask, small) > 0.8


def test_many_prompts_of_all_kinds_are_answered_as_each_alone(find, picture: np.ndarray) -> None:
    height, width = picture.shape[:2]
    points = [(width * (i % 7 + 1) / 8, height * (i // 7 + 1) / 5) for i in range(BATCH + 3)]
    prompts = [Prompt.at(*point) for point in points]
    prompts[4] = Prompt(box=(width * 0.2, height * 0.2, width * 0.7, height * 0.8))
    prompts[9] = Prompt((points[9], points[2]), (1, 0))
    together = find(*prompts)
    for i in (0, 4, 9, BATCH + 2):
        ((alone,),) = find(prompts[i])
        assert iou(together[i][0].mask, alone.mask) > 0.99
        assert together[i][0].predicted_iou == pytest.approx(alone.predicted_iou, abs=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (400, 3), (37, 53)])
def test_pictures_of_any_shape(segmenter: Segmenter, size: tuple[int, int]) -> None:
    picture = np.full((*size, 3), 200, np.uint8)
    ((found,),) = segmenter.segment(segmenter.embed(picture), size, [Prompt.at(0, 0)])
    assert found.mask.shape == size
