"""Motion facts, and the sentences made of them: grammatical in both languages, never a fact that was not measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pam_plugins.models.lite import motion_captions_en, motion_captions_zh
from pam_plugins.models.lite.captions_zh import Chinese
from pam_plugins.models.lite.facts import Facts
from pam_plugins.models.lite.motion import DIRECTIONS, POSITIONS, Motion, MotionRecorder, Observation, Thinned
from pam_plugins.models.lite.naming import Label
from pam_plugins.models.lite.nouns import Noun, Nouns

NOUNS = Nouns.load()
CHINESE = Chinese(NOUNS)
SIZE = (240, 320)
BLUE = Facts(("blue",), 0, 0, 0.0)


def observation(time: float, x: float, y: float, side: float = 40) -> Observation:
    box = (max(0, x - side / 2), max(0, y - side / 2), min(320, x + side / 2), min(240, y + side / 2))
    return Observation(time, box, (box[2] - box[0]) * (box[3] - box[1]))


def recorded(*places: tuple[float, float] | None, side: float = 40) -> Motion:
    """The motion of an object that was at these centres, one every tenth of a second; None where it was not seen."""
    recorder = MotionRecorder(SIZE)
    for number, place in enumerate(places):
        if place is None:
            recorder.add_absence(number / 10)
        else:
            recorder.add(observation(number / 10, *place, side))
    return recorder.motion()


def name_of(name: str) -> Label:
    return Label(noun(name), 0.9)


def noun(name: str) -> Noun:
    return next(n for n in NOUNS.values() if n.name == name)


@pytest.mark.parametrize(
    ("step", "direction"),
    list(
        zip([(4, 0), (4, 4), (0, 4), (-4, 4), (-4, 0), (-4, -4), (0, -4), (4, -4)], DIRECTIONS, strict=True),
    ),
)
def test_direction_and_speed_are_those_of_the_way(step: tuple[int, int], direction: str) -> None:
    motion = recorded(*[(160 + step[0] * (i - 10), 120 + step[1] * (i - 10)) for i in range(21)])
    assert motion.direction == direction and motion.moves
    assert motion.speed == pytest.approx(10 * (step[0] ** 2 + step[1] ** 2) ** 0.5, rel=0.15)
    assert not (motion.found or motion.lost or motion.away)


def test_jitter_is_standing_still() -> None:
    motion = recorded(*[(160 + i % 2, 120 + i % 3) for i in range(40)])
    assert not motion.moves and motion.speed is None and motion.direction is None


def test_back_and_forth_has_no_one_direction() -> None:
    motion = recorded(*[(60 + abs(40 - i * 2) * 4, 120) for i in range(41)])
    assert motion.moves and motion.direction is None


def test_time_that_runs_backward_or_stands_still_gives_no_negative_speed() -> None:
    backward, still = MotionRecorder(SIZE), MotionRecorder(SIZE)
    for number in range(20):
        backward.add(observation(2 - number / 10, 100 + 4 * number, 120))
        still.add(observation(0.0, 100 + 4 * number, 120))
    assert backward.motion().speed == pytest.approx(40, rel=0.15)
    assert still.motion().moves and still.motion().speed is None


def test_leaving_and_entering_are_told_with_the_edge() -> None:
    out = recorded(*[(x, 120) for x in range(100, -16, -8)], None, None)
    assert out.lost and out.leaves == "left" and not out.found
    into = recorded(None, None, *[(120, y) for y in range(250, 100, -8)])
    assert into.found and into.enters == "bottom" and not into.lost


def test_something_hidden_in_the_middle_leaves_by_no_edge() -> None:
    """Nor by the lower edge, which it touches all the time, when it walks to the side."""
    motion = recorded(*[(x, 230) for x in range(60, 200, 8)], None)
    assert motion.lost and motion.leaves is None


def test_the_time_away_in_between_is_measured() -> None:
    motion = recorded(*[(100 + 4 * i, 120) if not 8 <= i < 18 else None for i in range(30)])
    assert motion.away == pytest.approx(1.0) and not motion.lost and not motion.found


def test_growth_is_of_what_is_wholly_in_the_picture() -> None:
    recorder, cut_off = MotionRecorder(SIZE), MotionRecorder(SIZE)
    for number in range(30):
        recorder.add(observation(number / 10, 160, 120, 40 + 2 * number))
        cut_off.add(observation(number / 10, 300 + number, 120, 80))
    assert recorder.motion().growth == pytest.approx((90 / 44) ** 2, rel=0.2)
    assert cut_off.motion().growth is None


def test_what_goes_behind_something_does_not_shrink() -> None:
    recorder = MotionRecorder(SIZE)
    for number in range(30):
        recorder.add(observation(number / 10, 160, 120, 80 - 2 * number))
    assert recorder.motion().growth is not None
    recorder.add_absence(3.0)
    assert recorder.motion().growth is None


def test_nothing_seen_is_nothing_measured() -> None:
    motion = recorded(None, None)
    assert motion.start is None and motion.lost and motion.found


@given(st.integers(1, 64), st.integers(0, 3000))
def test_thinning_keeps_few_and_the_first(most: int, count: int) -> None:
    thinned: Thinned[int] = Thinned(most)
    for number in range(count):
        thinned.put(number)
    assert len(thinned.items) <= most
    assert thinned.items[:1] == ([0] if count else [])
    steps = {b - a for a, b in zip(thinned.items, thinned.items[1:], strict=False)}
    assert len(steps) <= 1


@given(
    st.lists(st.none() | st.tuples(st.floats(0, 320), st.floats(0, 240)), min_size=1, max_size=2 * POSITIONS),
    st.floats(1, 200),
)
def test_whatever_was_seen_makes_a_sentence_in_both_languages(
    places: list[tuple[float, float] | None], side: float
) -> None:
    motion = recorded(*places, side=side)
    said = motion_captions_en.describe(name_of("cup"), BLUE, motion)
    assert said.startswith("A blue cup ") and said.endswith(".") and said.count(".") - said.count("0.") >= 1
    assert "None" not in said and "nan" not in said and "  " not in said
    chinese = motion_captions_zh.describe(CHINESE, name_of("cup"), BLUE, motion)
    assert chinese.startswith("一个蓝色的杯子，") and chinese.endswith("。") and "None" not in chinese


def test_a_person_leaving() -> None:
    motion = Motion(
        start=(0.6, 0.5), end=(0.1, 0.5), moves=True, direction="left", speed=41.3, leaves="left", lost=True
    )
    person = Label(NOUNS["n00007846"], 0.9)
    assert motion_captions_en.describe(person, BLUE, motion) == (
        "A person, mostly blue, moves to the left at about 41 pixels a second and leaves the picture on the left."
    )
    assert motion_captions_zh.describe(CHINESE, person, BLUE, motion) == (
        "一个人，以蓝色为主，以每秒约41像素的速度向左移动，最后从画面左侧离开。"
    )


def test_everything_at_once_and_plural_nouns() -> None:
    motion = Motion((0.5, 0.5), (0.5, 0.5), True, "up", 123.0, 2.0, "left", None, True, True, 1.0)
    assert motion_captions_en.describe(name_of("sunglasses"), BLUE, motion) == (
        "Blue sunglasses enter the picture on the left, move up at about 120 pixels a second, grow to about 2.0 "
        "times their area in the picture, are out of sight for about 1 second in between and go out of sight."
    )
    assert motion_captions_zh.describe(CHINESE, name_of("cup"), BLUE, motion) == (
        "一个蓝色的杯子，从画面左侧进入，以每秒约120像素的速度向上移动，在画面中的面积增大到约2.0倍，中间约有1秒看不见，"
        "最后看不见了。"
    )


def test_what_was_not_measured_is_not_said() -> None:
    still = Motion(start=(0.1, 0.1), end=(0.1, 0.1))
    stays = motion_captions_en.describe(name_of("cup"), BLUE, still)
    assert stays == "A blue cup stays at the top left of the picture."
    assert motion_captions_zh.describe(CHINESE, name_of("cup"), BLUE, still) == "一个蓝色的杯子，停留在画面左上方。"
    assert motion_captions_en.describe(name_of("cup"), BLUE, Motion()) == "A blue cup is not seen."
