"""The whole of an object, found again where part of it is hidden."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pam_plugins.models.lite.appearance import View
from pam_plugins.models.lite.whole import Whole

CELLS = (48, 64)
THING = np.random.default_rng(0).choice([20, 230], (5, 6, 3)).astype(np.uint8).repeat(4, 0).repeat(4, 1)


def view(left: int | None, hidden: int = 0, dark: int = 0) -> View:
    """A thing of 12 x 10 cells on grey, its left edge in cells; of it, `hidden` cells from the right are covered."""
    picture = np.full((2 * CELLS[0], 2 * CELLS[1], 3), 120, np.uint8)
    if left is not None:
        picture[40:60, 2 * left : 2 * left + 24] = THING
        picture[30:70, 2 * (left + 12 - hidden) : 2 * (left + 12)] = (250, 250, 0)
    return View(picture - np.uint8(dark), torch.zeros(1, 4, 16, 16), CELLS)


def thing(left: int) -> np.ndarray:
    mask = np.zeros(CELLS, bool)
    mask[20:30, left : left + 12] = True
    return mask


@pytest.mark.parametrize("hidden", [0, 3, 7])
def test_it_is_found_by_what_is_left_of_it(hidden: int) -> None:
    whole = Whole.seen(thing(20), view(20))
    whole.move(np.array([2.0, 0.0]))
    whole.find(view(25, hidden), 0.5)
    assert np.array_equal(whole.mask, thing(25))
    assert whole.fits == pytest.approx(1 - hidden / 12, abs=0.1)


def test_a_little_less_light_makes_no_difference() -> None:
    whole = Whole.seen(thing(20), view(20))
    whole.find(view(23, 6, dark=10), 0.5)
    assert np.array_equal(whole.mask, thing(23))


def test_where_it_is_not_hardly_anything_fits() -> None:
    whole = Whole.seen(thing(20), view(20))
    whole.find(view(None), 0.5)
    assert whole.fits < 0.4


def test_it_goes_on_from_where_it_was_found_only_once_that_is_settled() -> None:
    whole = Whole.seen(thing(20), view(20))
    whole.find(view(24), 0.5)
    whole.move(np.array([1.0, 0.0]))
    assert np.array_equal(whole.mask, thing(21))
    whole.find(view(24), 0.5)
    whole.settle()
    whole.move(np.array([1.0, 0.0]))
    assert np.array_equal(whole.mask, thing(25))


def test_beyond_the_edge_of_the_picture_nothing_fits() -> None:
    whole = Whole.seen(thing(20), view(20))
    whole.move(np.array([-100.0, 0.0]))
    whole.find(view(20), 0.3)
    assert whole.fits == 0 and not whole.mask.any()


def test_one_cell_is_a_thing_too() -> None:
    mask = np.zeros(CELLS, bool)
    mask[20, 20] = True
    whole = Whole.seen(mask, view(20))
    whole.find(view(20), 0.3)
    assert np.array_equal(whole.mask, mask)
