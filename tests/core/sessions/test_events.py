"""Where events end: made-up trajectories, and any trajectory at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pam_core.errors import VideoError
from pam_core.masks import Mask
from pam_core.sessions.events import EventDetector, EventRule, is_visible
from pam_core.types import ModelRef, Region

WIDTH, HEIGHT = 160, 120
REF = ModelRef("fake", "1")
RULE = EventRule(min_frames=16, max_frames=1000)
UP, SIDE = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
FPS = 25.0


def seen(x: float, y: float, width: int = 20, height: int = 20, presence: float = 0.9) -> Region:
    """A rectangle with its top left corner at x, y; nothing where it is not there."""
    array = np.zeros((HEIGHT, WIDTH), bool)
    if presence >= 0.5:
        array[round(y) : round(y) + height, round(x) : round(x) + width] = True
    return Region(Mask.from_array(array), REF, presence=presence)


GONE = seen(0, 0, presence=0.1)


def boundaries(regions: Iterable[Region], rule: EventRule = RULE, signatures: Iterable[np.ndarray] = ()) -> list[int]:
    detector = EventDetector(rule)
    signatures = list(signatures)
    return [
        index
        for index, region in enumerate(regions)
        if detector.feed(region, signatures[index] if signatures else UP, index / FPS)
    ]


def bouncing(frames: int, speed: float = 2.5, low: float = 5, high: float = 135) -> list[Region]:
    """To and fro between two walls; the first is met after 52 frames, and then every 52."""
    span = high - low
    return [seen(low + span - abs(index * speed % (2 * span) - span), 50) for index in range(frames)]


@pytest.mark.parametrize("rule", [RULE, EventRule(max_frames=1000)], ids=["16", "default"])
def test_a_ball_that_bounces_ends_an_event_at_each_wall(rule: EventRule) -> None:
    found = boundaries(bouncing(220), rule)
    assert len(found) == 4
    for number, boundary in enumerate(found, 1):
        assert number * 52 < boundary <= number * 52 + 5


def test_an_object_that_stops_and_goes_on() -> None:
    places = [20 + 2 * min(index, 40) + 2 * max(0, index - 90) for index in range(110)]
    found = boundaries(seen(x, 50) for x in places)
    assert len(found) == 2
    assert 40 < found[0] <= 46
    assert 90 < found[1] <= 96


def test_an_object_that_vanishes_and_comes_back() -> None:
    found = boundaries([seen(50, 50)] * 40 + [GONE] * 40 + [seen(90, 20)] * 40)
    assert found == [44, 84]  # after five frames of it


def test_a_short_absence_changes_nothing() -> None:
    assert boundaries([*[seen(50, 50)] * 40, *[GONE] * 4, *[seen(50, 50)] * 40]) == []


def test_presence_that_flickers_does_not_end_events() -> None:
    assert boundaries(GONE if index % 2 else seen(50, 50) for index in range(200)) == []


def test_an_object_that_is_found_late_begins_an_event() -> None:
    assert boundaries([GONE] * 30 + [seen(50, 50)] * 40) == [34]


def test_steady_motion_ends_with_the_longest_event_only() -> None:
    regions = [seen(0.5 + index, 20 + index * 0.5) for index in range(130)]
    assert boundaries(regions) == []
    assert boundaries(regions, EventRule(16, 40)) == [40, 80, 120]


@given(st.lists(st.tuples(st.integers(-1, 1), st.integers(-1, 1)), min_size=120, max_size=120))
@settings(max_examples=50)
def test_the_jitter_of_a_pixel_ends_nothing(jitter: list[tuple[int, int]]) -> None:
    assert boundaries(seen(60 + x, 40 + y) for x, y in jitter) == []
    assert boundaries(seen(20 + index + x, 40 + y) for index, (x, y) in enumerate(jitter)) == []


def test_a_ragged_mask_that_moves_ends_nothing() -> None:
    """What is finer than the outline's cells is averaged, not picked at random."""
    ragged = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.15
    regions = []
    for index in range(40):
        array = ragged.copy()
        array[50:70, 40 + index : 60 + index] = True
        regions.append(Region(Mask.from_array(array), REF, presence=0.9))
    assert boundaries(regions) == []


@pytest.mark.parametrize(
    "after",
    [seen(60, 40, 30, 30), seen(60, 40, 12, 12), seen(60, 40, 40, 10)],
    ids=["larger", "smaller", "of another outline"],
)
def test_a_change_of_the_mask(after: Region) -> None:
    found = boundaries([seen(60, 40)] * 40 + [after] * 40)
    assert len(found) == 1
    assert 40 <= found[0] < 45


def test_growing_and_moving_keep_the_outline() -> None:
    """Only the area is told of, and that seldom."""
    rule = EventRule(16, 1000, area=100)
    assert boundaries((seen(10 + index, 10, 10 + index, 10 + index) for index in range(70)), rule) == []


@pytest.mark.parametrize(
    ("speed", "turn", "ends"),
    [(2, 20, False), (2, 60, True), (6, 0, True), (3, 0, False), (0.2, 0, True)],
    ids=["turns a little", "turns", "three times as fast", "half as fast again", "almost stops"],
)
def test_a_change_of_motion(speed: float, turn: float, ends: bool) -> None:
    dx, dy = speed * math.cos(math.radians(turn)), speed * math.sin(math.radians(turn))
    first = [seen(5 + 2 * index, 20) for index in range(30)]
    then = [seen(65 + dx * index, 20 + dy * index) for index in range(12)]
    assert bool(boundaries([*first, *then])) == ends


def test_speed_is_by_time_not_by_frame() -> None:
    """A camera that drops three of four frames from some moment on: the same motion."""
    detector = EventDetector(RULE)
    shown = [*range(40), *range(40, 70, 4)]
    assert not any(detector.feed(seen(5 + 1.5 * index, 50), UP, index / FPS) for index in shown)


def test_a_clock_that_stands_still_is_no_error() -> None:
    detector = EventDetector(RULE)
    assert not any(detector.feed(region, UP, 1.0) for region in bouncing(220))


def test_a_change_of_appearance() -> None:
    found = boundaries([seen(60, 40)] * 80, signatures=[UP] * 40 + [SIDE] * 40)
    assert len(found) == 1
    assert 40 <= found[0] < 45


def test_an_appearance_that_wavers_is_no_change() -> None:
    signatures = [np.array([math.cos(a), math.sin(a)], np.float32) for a in np.sin(np.arange(80)) * 0.4]
    assert boundaries([seen(60, 40)] * 80, signatures=signatures) == []


def test_a_change_too_early_ends_the_event_when_it_may() -> None:
    assert boundaries([seen(60, 40)] * 8 + [GONE] * 40) == [16]
    assert boundaries([seen(60, 40)] * 6 + [GONE] * 6 + [seen(60, 40)] * 40) == []  # it was over before


@given(st.integers(1, 9), st.integers(1, 60))
def test_a_fixed_length_compares_nothing(length: int, frames: int) -> None:
    found = boundaries(bouncing(frames), EventRule(length, length))
    assert found == list(range(length, frames, length))


places = st.tuples(st.integers(0, WIDTH - 40), st.integers(0, HEIGHT - 40), st.integers(1, 40), st.integers(1, 40))
stretches = st.lists(st.tuples(st.none() | places, st.integers(1, 25), st.integers(-3, 3)), min_size=1, max_size=8)


def trajectory(parts: list[tuple[tuple[int, int, int, int] | None, int, int]]) -> list[Region]:
    """Stretches, each a place (or absence), a number of frames, and pixels a frame."""
    return [
        GONE if place is None else seen(min(max(place[0] + index * speed, 0), WIDTH - 40), *place[1:])
        for place, frames, speed in parts
        for index in range(frames)
    ]


@given(
    parts=stretches,
    limits=st.tuples(st.integers(1, 30), st.integers(0, 30)),
    settle=st.integers(1, 8),
    swing=st.floats(0, 2),
)
@settings(max_examples=60)
def test_boundaries_are_neither_too_close_nor_too_far(
    parts: list[tuple[tuple[int, int, int, int] | None, int, int]],
    limits: tuple[int, int],
    settle: int,
    swing: float,
) -> None:
    rule = EventRule(limits[0], limits[0] + limits[1], settle)
    regions = trajectory(parts)
    signatures = [
        np.array([math.cos(a), math.sin(a)], np.float32) for a in np.sin(np.arange(len(regions)) / 9) * swing
    ]
    found = [0, *boundaries(regions, rule, signatures)]
    steps = np.diff(found)
    assert all(rule.min_frames <= step <= rule.max_frames for step in steps)
    assert len(regions) - 1 - found[-1] <= rule.max_frames


@given(stretches)
@settings(max_examples=30)
def test_backward_in_time_is_as_good(parts: list[tuple[tuple[int, int, int, int] | None, int, int]]) -> None:
    """The rule knows no direction of time, only how long it took."""
    regions = trajectory(parts)
    forward, backward = EventDetector(RULE), EventDetector(RULE)
    for index, region in enumerate(regions):
        time = index / 32  # exact in binary: a threshold is not to be met by rounding
        assert forward.feed(region, UP, time) == backward.feed(region, UP, 99 - time)


def test_memory_does_not_grow() -> None:
    detector = EventDetector(EventRule(max_frames=10**9))
    sizes = set()
    for index in range(600):
        detector.feed(seen(60, 40), UP, index / FPS)
        if index > 20:
            sizes.add((len(detector._recent), detector._past.shape))
    assert len(sizes) == 1


def test_presence_is_unknown_where_a_model_has_none() -> None:
    there: Callable[[Region], bool] = is_visible
    assert there(Region(seen(5, 5).mask, REF))
    assert not there(Region(GONE.mask, REF))
    assert not there(Region(GONE.mask, REF, presence=0.9))
    assert not there(Region(seen(5, 5).mask, REF, presence=0.4))


@pytest.mark.parametrize(
    "values",
    [
        {"min_frames": 0},
        {"min_frames": 9, "max_frames": 8},
        {"settle": 0},
        {"shape": 1.1},
        {"area": 0.5},
        {"appearance": 2},
        {"motion": 0},
    ],
)
def test_values_that_make_no_sense(values: dict[str, float]) -> None:
    with pytest.raises(VideoError, match="wanted"):
        EventRule(**values)  # type: ignore[arg-type]
