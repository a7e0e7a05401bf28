"""Neighbours: who is who from frame to frame, on made-up detections of people of two colours; no network."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pam_core.masks import Box
from pam_core.types import Picture
from pam_plugins.models.lite.naming import Detection
from pam_plugins.models.lite.neighbours import MOST_AWAY, Neighbour, Neighbours, Sight, halves, pair

PERSON = "n00007846"
RED, BLUE, BLACK, JEANS = (200, 40, 40), (40, 40, 200), (20, 20, 20), (70, 90, 160)
WIDTH, HEIGHT = 320, 120
Clothes = tuple[tuple[int, int, int], tuple[int, int, int]]
Person = tuple[Clothes, float]
DARK: Clothes = (BLACK, BLACK)
DARK_IN_JEANS: Clothes = (BLACK, JEANS)
BRIGHT: Clothes = (RED, BLUE)


def box_at(x: float) -> Box:
    return (x - 10, 30, x + 10, 90)


def draw(people: list[Person]) -> Picture:
    """People at x on grey ground, the last in front."""
    picture = np.full((HEIGHT, WIDTH, 3), 150, np.uint8)
    for (upper, lower), x in people:
        left, right = max(0, int(x - 10)), max(0, int(x + 10))
        picture[30:60, left:right], picture[60:90, left:right] = upper, lower
    return picture


def found(*places: float, score: float = 0.8) -> list[Detection]:
    return [Detection(box_at(x), score, PERSON) for x in places]


def begin(people: list[Person], asked: float) -> Neighbours:
    """Object 1 is the person at `asked`; all stand there for long enough to be known."""
    neighbours = Neighbours()
    detections = found(*(x for _, x in people))
    neighbours.begin(draw(people), detections, {1: box_at(asked)})
    for _ in range(30):
        neighbours.step(draw(people), detections)
    return neighbours


def place(neighbours: Neighbours) -> float | None:
    """Where object 1 is seen."""
    sight = neighbours.sight(1)
    return None if sight is None else (sight.box[0] + sight.box[2]) / 2


def test_who_passes_takes_his_own_box() -> None:
    """Two in the same clothes walk through each other; for some frames there is one box for both."""
    neighbours = begin([(DARK, 60), (DARK, 200)], 60)
    for step in range(1, 35):
        one, two = 60 + 4 * step, 200 - 4 * step
        apart = abs(one - two) > 8
        picture = draw([(DARK, two), (DARK, one)])
        neighbours.step(picture, found(one, two) if apart else found((one + two) / 2))
    assert place(neighbours) == 60 + 4 * 34


def test_two_who_meet_and_turn_back_are_told_apart_by_their_halves() -> None:
    neighbours = begin([(DARK, 60), (DARK_IN_JEANS, 140)], 60)
    for step in [*range(1, 11), *range(9, -1, -1)]:
        one, two = 60 + 4 * step, 140 - 4 * step
        apart = abs(one - two) > 8
        picture = draw([(DARK_IN_JEANS, two), (DARK, one)])
        neighbours.step(picture, found(one, two) if apart else found((one + two) / 2))
    assert place(neighbours) == 60


def test_of_two_who_overlap_nothing_is_learnt() -> None:
    neighbours = begin([(DARK, 100), (BRIGHT, 150)], 100)
    before = neighbours.bound[1].look.copy()
    for _ in range(30):
        neighbours.step(draw([(DARK, 100), (BRIGHT, 112)]), found(100, 112))
    sight = neighbours.sight(1)
    assert sight is not None and sight.crowded
    assert np.array_equal(neighbours.bound[1].look, before)


def test_one_who_is_hidden_is_not_looked_for_among_others_until_seen_again() -> None:
    neighbours = begin([(DARK, 100), (DARK_IN_JEANS, 150)], 100)
    for _ in range(MOST_AWAY):
        neighbours.step(draw([(DARK_IN_JEANS, 150)]), found(150))
        assert place(neighbours) is None
        assert not neighbours.is_hidden(1, 0)
    for _ in range(60):
        neighbours.step(draw([(DARK_IN_JEANS, 115)]), found(115))
        assert place(neighbours) is None
        assert neighbours.is_hidden(1, 1)
    neighbours.step(draw([(DARK_IN_JEANS, 115), (DARK, 112)]), found(112))
    assert place(neighbours) == 112


def test_one_who_is_gone_for_long_is_awaited_from_the_detector_alone() -> None:
    """After a cut to another scene, a fence may look more like a person than anything else there."""
    neighbours = begin([(DARK, 100)], 100)
    for lost_for in range(1, MOST_AWAY + 1):
        neighbours.step(draw([]), [])
        assert not neighbours.is_hidden(1, lost_for)
    neighbours.step(draw([]), [])
    assert neighbours.is_hidden(1, MOST_AWAY + 1)
    assert not neighbours.is_hidden(1, 1), "it was found without the detector, so it may be again"
    neighbours.step(draw([(DARK, 250)]), found(250))
    assert place(neighbours) == 250


def test_what_is_seldom_detected_is_not_hidden_where_it_is_not() -> None:
    neighbours = begin([(DARK, 100), (DARK_IN_JEANS, 200)], 100)
    picture = draw([(DARK, 100), (DARK_IN_JEANS, 200)])
    for step in range(90):
        neighbours.step(picture, found(100, 200) if step % 4 == 0 else found(200))
    for _ in range(20):
        neighbours.step(picture, found(200))
    assert not neighbours.is_hidden(1, 1)


def test_a_weak_detection_brings_nobody_back() -> None:
    neighbours = begin([(DARK, 100), (DARK_IN_JEANS, 200)], 100)
    picture = draw([(DARK, 100), (DARK_IN_JEANS, 200)])
    neighbours.step(picture, [*found(100, score=0.35), *found(200)])
    assert place(neighbours) == 100
    neighbours.step(picture, found(200))
    neighbours.step(picture, [*found(100, score=0.35), *found(200)])
    assert place(neighbours) is None
    neighbours.step(picture, found(100, 200))
    assert place(neighbours) == 100


@pytest.mark.parametrize("company", [False, True])
def test_who_left_the_picture_is_awaited_only_where_there_are_no_others(company: bool) -> None:
    others: list[Person] = [(BRIGHT, 100)] if company else []
    at = [x for _, x in others]
    neighbours = begin([(DARK, 300), *others], 300)
    for x in (305, 309):
        neighbours.step(draw([(DARK, x), *others]), found(x, *at))
    for _ in range(30):
        neighbours.step(draw(others), found(*at))
    neighbours.step(draw([(DARK, 300), *others]), found(300, *at))
    assert place(neighbours) == (None if company else 300)


def test_things_of_a_kind_that_the_detector_does_not_know_are_not_looked_for() -> None:
    neighbours = Neighbours()
    neighbours.begin(draw([(DARK, 100)]), found(100), {1: box_at(250)})
    assert neighbours.kinds == set() and neighbours.sight(1) is None and not neighbours.is_hidden(1, 1)


def test_the_last_who_is_removed_takes_all_neighbours_along() -> None:
    neighbours = begin([(DARK, 100), (BRIGHT, 150)], 100)
    assert neighbours.others(1) == [box_at(150)]
    neighbours.remove(1)
    assert neighbours.kinds == set() and neighbours.others(1) == []


def test_pairs_have_the_greatest_gain() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        rows, columns = random.integers(1, 5, 2)
        gains = random.normal(0.5, 1, (rows, columns))
        pairs = pair(gains)
        size = max(rows, columns)
        padded = np.zeros((size, size))
        padded[:rows, :columns] = np.maximum(gains, 0)
        best = max(sum(padded[i, j] for i, j in enumerate(order)) for order in itertools.permutations(range(size)))
        assert sum(gains[row, column] for row, column in pairs.items()) == pytest.approx(best)
        assert len(set(pairs.values())) == len(pairs)
        assert all(gains[row, column] > 0 for row, column in pairs.items())
    assert pair(np.zeros((0, 3))) == pair(np.zeros((3, 0))) == {}


def test_a_part_of_what_is_detected_is_no_such_thing() -> None:
    neighbours = Neighbours()
    neighbours.begin(draw([(DARK, 100)]), found(100), {1: (90, 30, 110, 65)})
    assert neighbours.kinds == set()


@pytest.mark.parametrize("box", [(319.9, 119.9, 320, 120), (0, 0, 0.1, 0.1), (0, 119.5, 320, 120)])
def test_the_smallest_boxes_at_the_edge_have_a_look(box: Box) -> None:
    assert np.linalg.norm(halves(draw([]), box)) == pytest.approx(1)


def test_what_the_detector_is_not_sure_of_is_of_no_kind() -> None:
    neighbours = Neighbours()
    neighbours.begin(draw([(DARK, 100)]), found(100, score=0.4), {1: box_at(100)})
    assert neighbours.kinds == set()


def test_to_an_object_that_is_not_detected_nobody_is_a_stranger() -> None:
    neighbours = begin([(DARK, 100), (BRIGHT, 200)], 100)
    assert neighbours.others(1) == [box_at(200)]
    assert neighbours.others(2) == []


def test_an_object_that_is_found_without_the_detector_is_detected_there_later() -> None:
    neighbours = begin([(DARK, 20)], 20)
    for _ in range(15):
        neighbours.step(draw([]), [])
    neighbours.step(draw([(BRIGHT, 40)]), found(40))
    neighbours.found_at(1, box_at(200))
    neighbours.step(draw([(BRIGHT, 40), (DARK, 205)]), found(40, 205))
    assert place(neighbours) == 205


def sight_of(box: Box, likeness: float = 1.0, crowded: bool = False) -> Sight:
    """A detection of somebody who looks as much as this like one whose look is (1, 0)."""
    look = np.array([likeness, (1 - likeness**2) ** 0.5], np.float32)
    return Sight(box, 0.8, look, crowded)


def test_who_was_half_hidden_comes_back_in_his_own_size() -> None:
    one = Neighbour(box_at(100), np.array([1, 0], np.float32), None)
    one.see(sight_of((90, 60, 96, 90), crowded=True))  # beside another only a part of him is detected
    one.go_on()
    assert one.gain(sight_of(box_at(100))) > 0


@pytest.mark.parametrize(
    ("likeness", "x", "seen_for", "may_be"),
    [
        (0.75, 105, 1, True),  # too unlike him to be paired, and yet it may be he
        (0.5, 105, 1, False),
        (0.75, 200, 1, False),
        (0.75, 105, 9, False),  # was there before he went
    ],
)
def test_somebody_new_where_one_is_missing_may_be_he(likeness: float, x: float, seen_for: int, may_be: bool) -> None:
    one = Neighbour(box_at(100), np.array([1, 0], np.float32), None)
    for _ in range(3):
        one.go_on()
    sight = sight_of(box_at(x), likeness)
    assert one.gain(sight) == 0
    assert one.may_be(Neighbour(sight.box, sight.look, sight, found=seen_for)) is may_be
