"""What goes wrong in a session is told, and the session goes on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pam_core.errors import VideoError
from pam_core.sessions.events import EventRule
from pam_core.sessions.session import Direction, StreamSession
from pam_core.types import Prompt
from pam_core.video import Fault, Frame, FrameResult, SessionResult, TrackEvent
from tests.core.sessions.sessions import (
    BLUE,
    ON_BLUE,
    ON_RED,
    RED,
    follow,
    of,
    refuse,
    spans,
)
from tests.fake_video import FakeSource, FakeVideoModel, Trouble


def test_faults_of_the_source_pass_through() -> None:
    lost = Fault(3, 0.12, "Frame 3 is damaged.")
    seen = follow(FakeSource(8, [RED], change=lambda frame: lost if frame.index == 3 else frame))
    assert of(Fault, seen) == [lost]
    assert [frame.index for frame in of(FrameResult, seen)] == [0, 1, 2, 4, 5, 6, 7]


def test_a_frame_of_another_size_is_left_out() -> None:
    other = np.zeros((10, 20, 3), np.uint8)
    source = FakeSource(8, [RED], change=lambda frame: replace(frame, picture=other) if frame.index == 3 else frame)
    seen = follow(source)
    (fault,) = of(Fault, seen)
    assert "20x10 after frames of 64x48" in fault.what
    assert 3 not in [frame.index for frame in of(FrameResult, seen)]
    assert len(of(FrameResult, seen)) == 7


def test_a_frame_that_comes_again_is_left_out() -> None:
    source = FakeSource(8, [RED], change=lambda frame: replace(frame, index=2) if frame.index == 5 else frame)
    (fault,) = of(Fault, follow(source))
    assert "frame 2 after frame 4" in fault.what


@pytest.mark.parametrize(
    ("times", "told"),
    [
        (lambda time: time if time < 0.4 else time + 5, "Time jumps by 5.0 s"),
        (lambda time: min(time, 0.4), "Time does not go on"),
        (lambda time: time if time < 0.4 else time - 0.3, "Time does not go on"),
    ],
    ids=["jumps", "repeats", "goes back"],
)
def test_strange_times_are_told_once_and_the_frames_followed(times: object, told: str) -> None:
    source = FakeSource(20, [RED], change=lambda frame: replace(frame, time=times(frame.time)))  # type: ignore[operator]
    seen = follow(source)
    (fault,) = of(Fault, seen)
    assert told in fault.what
    assert all(frame.regions for frame in of(FrameResult, seen))


def test_a_slow_source_has_no_strange_times() -> None:
    assert of(Fault, follow(FakeSource(20, [RED], fps=0.1))) == []
    assert of(Fault, follow(FakeSource(30, [RED], change=lambda frame: None if 5 < frame.index < 9 else frame))) == []


def test_a_tracker_that_raises_costs_a_frame() -> None:
    seen = follow(FakeSource(20, [RED]), model=FakeVideoModel(Trouble(steps=frozenset({5, 6, 9}))))
    assert [fault.index for fault in of(Fault, seen)] == [5, 6, 9]
    assert "made-up trouble" in of(Fault, seen)[0].what
    assert [frame.index for frame in of(FrameResult, seen) if not frame.regions] == [5, 6, 9]
    assert spans(seen) == [(0, 13), (13, 19)]


def test_objects_that_fail_on_and_on_are_given_up() -> None:
    model = FakeVideoModel(Trouble(steps=range(5, 15)))
    seen = follow(FakeSource(30, [RED, BLUE]), [(1, ON_RED, 0), (2, ON_BLUE, 0), (3, ON_BLUE, 20)], model)
    given_up = [fault for fault in of(Fault, seen) if "given up" in fault.what]
    assert [(fault.index, fault.track_id) for fault in given_up] == [(9, 1), (9, 2)]
    assert len(of(Fault, seen)) == 7
    assert spans(seen, 1) == spans(seen, 2) == [(0, 4)]
    assert [region.track_id for region in of(FrameResult, seen)[-1].regions] == [3]


def test_where_the_tracker_says_which_object_the_others_stay() -> None:
    model = FakeVideoModel(Trouble(steps=range(5, 10), blames=2))
    seen = follow(FakeSource(20, [RED, BLUE]), [(1, ON_RED, 0), (2, ON_BLUE, 0)], model)
    assert {fault.track_id for fault in of(Fault, seen)} == {2}
    assert [region.track_id for region in of(FrameResult, seen)[-1].regions] == [1]


def test_signatures_that_fail_are_told_and_then_given_up() -> None:
    model = FakeVideoModel(Trouble(signatures=range(5, 100)))
    seen = follow(FakeSource(20, [RED]), model=model, rule=EventRule(5, 10))
    faults = of(Fault, seen)
    assert [fault.index for fault in faults] == [5, 6, 7, 8, 9, 9]
    assert "given up" in faults[-1].what
    assert not of(FrameResult, seen)[-1].regions


def test_a_clip_that_cannot_be_cut_has_no_caption() -> None:
    seen = follow(FakeSource(15, [RED]), model=FakeVideoModel(Trouble(cuts=True)))
    assert spans(seen) == [(0, 10), (10, 14)]
    assert all(event.texts == {} for event in of(TrackEvent, seen))
    assert len(of(Fault, seen)) == 2


frames = st.integers(0, 39)
some_frames = st.frozensets(frames, max_size=8)
objects = st.integers(1, 3)
asks = st.tuples(frames, objects, st.sampled_from([ON_RED, ON_BLUE, Prompt.at(900, 3)]), st.none() | frames)


@given(
    first=st.lists(asks, max_size=4),
    later=st.lists(asks | st.tuples(frames, objects), max_size=5),
    steps=some_frames | st.just(range(10, 17)),
    blames=st.none() | objects,
    signatures=some_frames,
    lost=some_frames,
    cuts=st.booleans(),
    mute=objects,
    damaged=some_frames,
    resized=some_frames,
    direction=st.sampled_from(["forward", "backward", "both"]),
    rule=st.sampled_from([EventRule(3, 3), EventRule(2, 9, 1), EventRule()]),
    history=st.sampled_from([0, 500]),
)
@settings(max_examples=60)
def test_whatever_happens(
    first: list[tuple],
    later: list[tuple],
    steps: frozenset[int] | range,
    blames: int | None,
    signatures: frozenset[int],
    lost: frozenset[int],
    cuts: bool,
    mute: int,
    damaged: frozenset[int],
    resized: frozenset[int],
    direction: Direction,
    rule: EventRule,
    history: int,
) -> None:
    """Every frame that can be used is given once and in order, what is shown belongs to an event, events are in
    order, and whatever goes wrong is a sentence.
    """

    def change(frame: Frame) -> Frame | Fault:
        if frame.index in damaged:
            return Fault(frame.index, frame.time, "Damaged.")
        return replace(frame, picture=frame.picture[:20]) if frame.index in resized else frame

    def usable(indices: Sequence[int]) -> list[int]:
        """Those that can be used: undamaged, and of the size of the first of these."""
        whole = [index for index in indices if index not in damaged]
        return [index for index in whole if (index in resized) == (whole[0] in resized)]

    trouble = replace(refuse(mute), steps=steps, blames=blames, signatures=signatures, frames_lost=lost, cuts=cuts)
    asked = [frame for _, _, _, frame in first]
    seen: list[SessionResult] = []
    with StreamSession(FakeVideoModel(trouble), rule=rule, history=history) as session:
        for _, track_id, prompt, frame in first:
            session.prompt(track_id, prompt, frame)
        try:
            run = session.run(FakeSource(40, [RED, BLUE], change=change), direction)
        except VideoError:
            assert direction != "forward"
            assert not any(frame is not None for frame in asked)
            return
        for one in run:
            seen.append(one)
            for at, track_id, *prompt in later if isinstance(one, FrameResult) else []:
                if at == one.index:
                    session.prompt(track_id, *prompt) if prompt else session.remove(track_id)

    start = 0 if None in asked or not asked else min(asked)
    wanted = {
        "forward": lambda: [range(40)],
        "backward": lambda: [range(max(frame for frame in asked if frame is not None), -1, -1)],
        "both": lambda: [range(start, 40), range(start, -1, -1)],
    }[direction]()
    expected = [index for indices in wanted for index in usable(indices)]
    if direction == "both" and expected.count(start) > 0:
        expected = [*usable(wanted[0]), *(index for index in usable(wanted[1]) if index != start)]
    assert [frame.index for frame in of(FrameResult, seen)] == expected

    covered = {(e.track_id, index) for e in of(TrackEvent, seen) for index in range(e.first, e.last + 1)}
    shown = {(region.track_id, frame.index) for frame in of(FrameResult, seen) for region in frame.regions}
    assert shown <= covered
    if direction != "both":
        for track_id in (1, 2, 3):
            found = spans(seen, track_id)[:: 1 if direction == "forward" else -1]
            assert all(before[1] <= after[0] for before, after in itertools.pairwise(found))
    for one in seen:
        json.dumps(one.to_json(), allow_nan=False)
        assert not isinstance(one, Fault) or one.what.endswith((".", "?"))
