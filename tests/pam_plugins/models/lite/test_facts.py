"""What is measured of regions: colours, places, sizes and how they lie to each other."""

from __future__ import annotations

import numpy as np
import pytest

from pam_plugins.models.lite.facts import colour_names, measure

COLOURS = {
    "black": [(10, 10, 12), (40, 40, 42)],
    "white": [(250, 250, 250), (235, 235, 230)],
    "grey": [(128, 128, 128), (140, 132, 125)],
    "red": [(210, 50, 40), (200, 20, 30)],
    "orange": [(240, 140, 30), (220, 110, 30)],
    "yellow": [(230, 200, 40), (140, 110, 10), (200, 160, 30)],
    "green": [(90, 120, 50), (50, 90, 40)],
    "blue": [(130, 180, 230), (70, 90, 130), (25, 30, 80)],
    "purple": [(110, 50, 130)],
    "pink": [(240, 160, 180)],
    "brown": [(140, 100, 60), (80, 50, 30), (120, 65, 35)],
    "beige": [(210, 180, 140), (190, 150, 100)],
}


@pytest.mark.parametrize(("name", "pixel"), [(name, p) for name, pixels in COLOURS.items() for p in pixels])
def test_everyday_colours_have_their_everyday_names(name: str, pixel: tuple[int, int, int]) -> None:
    """A lemon in shadow (140, 110, 10) was "brown" once, and navy "purple"."""
    assert colour_names(np.array([pixel], np.uint8)).tolist() == [name]


def picture(height: int = 120, width: int = 160) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def rectangle(x1: int, y1: int, x2: int, y2: int, height: int = 120, width: int = 160) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def test_two_colours_are_named_most_of_the_region_first() -> None:
    shown = picture()
    shown[0:70, 0:100] = (200, 20, 30)
    shown[70:100, 0:100] = (250, 250, 250)
    (fact,) = measure(shown, [rectangle(0, 0, 100, 100)])
    assert fact.colours == ("red", "white")


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ((0, 0, 20, 20), (-1, -1)),
        ((70, 50, 90, 70), (0, 0)),
        ((140, 100, 160, 120), (1, 1)),
        ((0, 50, 9, 70), (0, -1)),
    ],
)
def test_place_and_share(box: tuple[int, int, int, int], place: tuple[int, int]) -> None:
    (fact,) = measure(picture(), [rectangle(*box)])
    assert (fact.row, fact.column) == place
    assert fact.share == pytest.approx((box[2] - box[0]) * (box[3] - box[1]) / (120 * 160))


def test_a_cup_rests_on_the_table_and_touches_it() -> None:
    cup, table, far = rectangle(60, 40, 80, 60), rectangle(0, 60, 160, 90), rectangle(0, 0, 10, 10)
    of_cup, of_table, of_far = measure(picture(), [cup, table, far])
    assert of_cup.rests_on == 1
    assert of_cup.touches == (1,)
    assert of_table.rests_on is None
    assert of_table.touches == (0,)
    assert of_far.touches == () and of_far.inside is None


def test_what_lies_inside_names_the_smallest_around_it() -> None:
    eye, face, wall = rectangle(50, 50, 60, 60), rectangle(40, 40, 90, 90), rectangle(0, 0, 160, 120)
    facts = measure(picture(), [eye, face, wall])
    assert [fact.inside for fact in facts] == [1, 2, None]


def test_an_empty_mask_has_no_facts_and_breaks_none() -> None:
    nothing, fact = measure(picture(), [rectangle(0, 0, 0, 0), rectangle(0, 0, 9, 9)])
    assert nothing.share == 0 and nothing.colours == ()
    assert fact.touches == ()
