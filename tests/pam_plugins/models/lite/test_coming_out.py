"""One track: what it expects to come out from behind another that is followed."""

from __future__ import annotations

import numpy as np

from pam_plugins.models.lite.track import WAITED_FOR, Track
from tests.pam_plugins.models.lite.test_whole import CELLS, thing, view

NOBODY = np.zeros(CELLS, bool)


def lost(near: bool) -> Track:
    """A thing that stands still and is hidden whole."""
    track = Track.begin(thing(20), view(20))
    track.lose(near)
    return track


def test_what_went_behind_another_is_awaited_where_it_comes_out() -> None:
    track = lost(near=True)
    front = NOBODY.copy()
    front[:, 26:40] = True
    track.predict(view(20), view(20, hidden=6))
    (ask,) = track.awaited(front)
    assert ask.mask is not None and np.array_equal(ask.mask, thing(20) & ~front)
    assert ask.inside[0] < 26


def test_it_is_not_awaited_while_nothing_of_it_can_be_out() -> None:
    track = lost(near=True)
    track.predict(view(20), view(20))
    assert track.awaited(thing(20)) == []


def test_it_is_not_awaited_where_the_picture_is_not_like_it() -> None:
    track = lost(near=True)
    track.predict(view(20), view(None))
    assert track.awaited(NOBODY) == []


def test_nobody_is_awaited_for_ever_nor_after_losing_him_elsewhere() -> None:
    alone = lost(near=False)
    alone.predict(view(20), view(20))
    assert alone.awaited(NOBODY) == []
    track = lost(near=True)
    for _ in range(WAITED_FOR):
        track.predict(view(20), view(20))
        assert track.awaited(NOBODY)
        track.lose(near=True)
    track.predict(view(20), view(20))
    assert track.awaited(NOBODY) == []


def test_what_comes_out_is_asked_for_whole() -> None:
    """Its left half is seen, and now nothing hides the other."""
    track = Track.begin(thing(20), view(20))
    half = thing(20)
    half[:, 26:] = False
    track.see(half, track.look, view(20, hidden=6), crowded=False, near=True)
    predicted = track.predict(view(20, hidden=6), view(20))
    due = track.coming_out(predicted, NOBODY)
    assert due is not None and np.array_equal(due, thing(20))
    asked = [ask.mask for ask in track.asks(predicted, NOBODY, view(20))]
    assert len(asked) == 2 and np.array_equal(asked[1], thing(20))
    front = thing(20) & ~half
    assert track.coming_out(predicted, front) is None
    assert len(track.asks(predicted, front, view(20))) == 1
