"""Finding everything: each shape once, the best first, within the bounds that were set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from pam_core.contracts import Proposer
from pam_core.masks import Mask
from pam_core.questions import ImageEmbedding
from pam_core.types import Prompt, Region
from pam_plugins.proposers import GridProposer
from tests.factories import FAKE_INFO, FakeModel, Shape, shapes


class Scripted(FakeModel):
    """Answers the prompts with these regions in turn, over and over."""

    def __init__(self, *regions: Region) -> None:
        super().__init__()
        self.regions = regions
        self.prompts: list[Prompt] = []

    def segment(self, prompts: Sequence[tuple[ImageEmbedding, Prompt]]) -> list[list[Region]]:
        self.prompts += [prompt for _, prompt in prompts]
        return [[self.regions[index % len(self.regions)]] for index in range(len(prompts))]


def box_region(x1: int, y1: int, x2: int, y2: int, size: int = 100, **values: float | None) -> Region:
    mask = np.zeros((size, size), bool)
    mask[y1:y2, x1:x2] = True
    return Region(Mask.from_array(mask), FAKE_INFO.ref, **{"predicted_iou": 0.95, "stability": 0.95, **values})  # type: ignore[arg-type]


def propose(proposer: GridProposer, model: FakeModel, picture: np.ndarray | None = None) -> list[Region]:
    picture = np.full((100, 100, 3), 255, np.uint8) if picture is None else picture
    return proposer.propose(model, model.embed([picture])[0])


def colours_of(regions: list[Region], known: list[Shape]) -> list[str]:
    by_counts = {Mask.from_array(shape.mask).counts: shape.colour for shape in known}
    return sorted(by_counts.get(region.mask.counts, "?") for region in regions)


@pytest.mark.parametrize(("width", "height", "count"), [(120, 90, 4), (200, 100, 7), (90, 120, 3), (600, 400, 7)])
def test_each_shape_is_found_once(width: int, height: int, count: int) -> None:
    picture, known = shapes(width, height, count)
    model = FakeModel()
    found = propose(GridProposer(max_area=0.5), model, picture)
    assert colours_of(found, known) == sorted(shape.colour for shape in known)
    assert model.segments == 144
    assert model.describes == 0
    assert all(region.texts == {} for region in found)


def test_the_picture_behind_the_shapes_is_found_where_it_may_be() -> None:
    picture, known = shapes(120, 90, 4)
    colours = colours_of(propose(GridProposer(), FakeModel(), picture), known)
    assert colours == sorted([*(shape.colour for shape in known), "?"])


def test_clicks_cover_the_picture_evenly_and_stay_inside() -> None:
    model = Scripted(box_region(0, 0, 50, 50))
    propose(GridProposer(points_per_side=4), model, np.zeros((100, 100, 3), np.uint8))
    centres = [12.5, 37.5, 62.5, 87.5]
    assert [prompt.points for prompt in model.prompts] == [((x, y),) for y in centres for x in centres]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (3, 2)])
def test_the_smallest_pictures(size: tuple[int, int]) -> None:
    picture = np.full((*size, 3), 255, np.uint8)
    assert len(propose(GridProposer(max_area=1.0), FakeModel(), picture)) == 1
    assert propose(GridProposer(max_area=0.9), FakeModel(), picture) == []


@pytest.mark.parametrize("max_overlap", [0.0, 0.3, 0.7, 0.95])
def test_no_two_overlap_more_than_allowed(max_overlap: float) -> None:
    rng = np.random.default_rng(5)
    boxes = [
        box_region(x, y, x + w, y + h, predicted_iou=round(0.9 + n / 1000, 4))
        for n, (x, y, w, h) in enumerate(rng.integers(5, 50, (60, 4)).tolist())
    ]
    found = propose(GridProposer(max_overlap=max_overlap), Scripted(*boxes))
    for one, other in combinations(found, 2):
        assert one.mask.iou([other.mask])[0] <= max_overlap
    for left_out in (box for box in boxes if box not in found):
        better = [one for one in found if (one.predicted_iou or 0) >= (left_out.predicted_iou or 0)]
        assert left_out.mask.iou([one.mask for one in better]).max() > max_overlap


def test_of_two_alike_the_surer_stays() -> None:
    weak, sure = box_region(10, 10, 50, 50, predicted_iou=0.85), box_region(10, 10, 50, 51, predicted_iou=0.95)
    assert propose(GridProposer(), Scripted(weak, sure)) == [sure]


def test_the_best_come_first() -> None:
    regions = [
        box_region(n * 20, 0, n * 20 + 15, 15, predicted_iou=iou, stability=stability)
        for n, (iou, stability) in enumerate([(0.9, 0.9), (0.99, 0.99), (0.95, 0.86), (0.83, 0.99)])
    ]
    scores = [(r.predicted_iou or 0) * (r.stability or 0) for r in propose(GridProposer(), Scripted(*regions))]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("known", [{"predicted_iou": None}, {"stability": None}])
def test_the_best_come_first_where_one_score_is_unknown(known: dict[str, None]) -> None:
    scores = [0.9, 0.99, 0.95]
    regions = [
        box_region(n * 20, 0, n * 20 + 15, 15, **{"predicted_iou": score, "stability": score, **known})
        for n, score in enumerate(scores)
    ]
    found = propose(GridProposer(), Scripted(*regions))
    assert found == [regions[1], regions[2], regions[0]]


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ({"predicted_iou": 0.82, "stability": 0.85}, True),
        ({"predicted_iou": 0.819, "stability": 0.99}, False),
        ({"predicted_iou": 0.99, "stability": 0.849}, False),
        ({"predicted_iou": None, "stability": None}, True),
        ({"predicted_iou": 0.0, "stability": 0.99}, False),
        ({"predicted_iou": 0.99, "stability": 0.0}, False),
    ],
)
def test_the_unsure_are_dropped(values: dict[str, float | None], kept: bool) -> None:
    assert len(propose(GridProposer(), Scripted(box_region(0, 0, 50, 50, **values)))) == kept


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ((0, 0, 3, 3), False),
        ((0, 0, 5, 2), True),
        ((0, 0, 90, 100), True),
        ((0, 0, 91, 100), False),
        ((0, 0, 0, 0), False),
    ],
)
def test_the_bounds_of_the_area_belong_to_what_is_kept(box: tuple[int, int, int, int], kept: bool) -> None:
    proposer = GridProposer(min_area=0.001, max_area=0.9)
    assert len(propose(proposer, Scripted(box_region(*box)))) == kept


@pytest.mark.parametrize("most", [1, 2, 5])
def test_no_more_than_asked_for_and_those_the_best(most: int) -> None:
    regions = [box_region(n * 12, 0, n * 12 + 10, 20, predicted_iou=0.85 + n / 100) for n in range(8)]
    found = propose(GridProposer(max_regions=most), Scripted(*regions))
    assert found == regions[::-1][:most]


def test_nothing_found_is_no_error() -> None:
    assert propose(GridProposer(), Scripted(box_region(0, 0, 50, 50, predicted_iou=0.1))) == []


def test_regions_come_back_as_the_model_made_them() -> None:
    region = replace(box_region(0, 0, 50, 50), prompt=Prompt.at(3, 3), presence=0.5)
    assert propose(GridProposer(), Scripted(region)) == [region]


def test_it_is_a_proposer() -> None:
    assert isinstance(GridProposer(), Proposer)
