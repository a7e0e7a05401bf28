"""Captions of events: their history, calls that hold many, failures, and what is left out when they are slow."""

from __future__ import annotations

import threading
import time

from pam_core.contracts import Generation
from pam_core.inference.captions import Captions
from pam_core.inference.stream import StreamSession
from pam_core.video import EventSeen, Fault, FrameSeen
from tests.fake_video import FakeClip, FakeSource, FakeVideoModel, Trouble
from tests.inference.sessions import (
    BLUE,
    EVERY_10,
    ON_BLUE,
    ON_RED,
    RED,
    follow,
    of,
    refuse,
    spans,
)


def test_a_patient_session_waits_for_captions_and_leaves_none_out() -> None:
    """Two clips may wait; what comes after them is not looked at before there is room."""
    model = FakeVideoModel(Trouble(caption_seconds=0.05))
    with StreamSession(model, rule=EVERY_10, waiting=2, patient=True) as session:
        session.prompt(1, ON_RED)
        seen = []
        for one in session.run(FakeSource(81, [RED])):
            seen.append(one)
            if isinstance(one, FrameSeen):
                # Of the events that are over, two wait, one is being described, and one has just come.
                assert one.index // 10 - sum(len(call.clips) for call in model.calls) <= 4
    assert of(Fault, seen) == []
    assert [event.first for event in of(EventSeen, seen) if event.texts] == list(range(0, 80, 10))


def test_a_patient_session_can_be_closed_while_it_waits() -> None:
    go_on = threading.Event()
    model = FakeVideoModel(Trouble(captions=lambda number, clips: go_on.wait(10) and None))
    session = StreamSession(model, rule=EVERY_10, waiting=1, patient=True)
    session.prompt(1, ON_RED)
    seen: list[object] = []
    following = threading.Thread(target=lambda: seen.extend(session.run(FakeSource(200, [RED]))))
    following.start()
    while not model.calls:
        time.sleep(0.001)
    closing = threading.Thread(target=session.close)
    closing.start()
    go_on.set()
    following.join(10)
    closing.join(10)
    assert not following.is_alive() and not closing.is_alive()


def test_the_last_caption_of_the_same_object_is_the_history() -> None:
    model = FakeVideoModel()
    follow(FakeSource(31, [RED, BLUE]), [(1, ON_RED, 0), (2, ON_BLUE, 0)], model, languages=("en", "zh"))
    previous = {
        (clip.track_id, clip.first): before["en"] if before else None
        for call in model.calls
        for clip, before in zip(call.clips, call.previous, strict=True)
    }
    assert previous == {
        (1, 0): None,
        (1, 10): "A red thing, frames 0 to 10.",
        (1, 20): "A red thing, frames 10 to 20.",
        (2, 0): None,
        (2, 10): "A blue thing, frames 0 to 10.",
        (2, 20): "A blue thing, frames 10 to 20.",
    }
    assert all(set(before) in (set(), {"en", "zh"}) for call in model.calls for before in call.previous)


def test_history_is_trimmed() -> None:
    model = FakeVideoModel()
    follow(FakeSource(21, [RED]), model=model, history=5)
    assert [call.previous for call in model.calls] == [[{}], [{"en": "A red"}]]


def test_a_removed_object_leaves_no_history() -> None:
    model = FakeVideoModel()
    with StreamSession(model, rule=EVERY_10) as session:
        session.prompt(1, ON_RED)
        for seen in session.run(FakeSource(30, [RED, BLUE])):
            if isinstance(seen, FrameSeen) and seen.index == 10:
                session.remove(1)
                session.prompt(1, ON_BLUE)
    described = [
        (clip.colour, before) for call in model.calls for clip, before in zip(call.clips, call.previous, strict=True)
    ]
    assert described[0] == ("red", {})
    assert described[1] == ("blue", {})
    assert described[2][0] == "blue"
    assert "blue" in described[2][1]["en"]


def test_what_is_forgotten_while_a_caption_is_made_is_no_history_of_the_next() -> None:
    go_on = threading.Event()
    model = FakeVideoModel(Trouble(captions=lambda number, clips: go_on.wait(10) and None if number == 0 else None))
    captions = Captions(model, ("en",), Generation(), 500, 10)
    for first in (0, 10):
        captions.put(EventSeen(1, first, first + 10, 0.0, 1.0), FakeClip(1, first, first + 10, "red", 10))
        while not model.calls:
            time.sleep(0.001)
        captions.forget(1)
    go_on.set()
    assert spans(list(captions.finish())) == [(0, 10), (10, 20)]
    captions.close()
    assert [call.previous for call in model.calls] == [[{}], [{}]]


def test_clips_that_wait_go_in_one_call() -> None:
    """While the first call takes its time, everything else comes; without history it is all one call."""
    go_on = threading.Event()
    model = FakeVideoModel(Trouble(captions=lambda number, clips: go_on.wait(10) and None if number == 0 else None))
    with StreamSession(model, rule=EVERY_10, history=0) as session:
        session.prompt(1, ON_RED)
        session.prompt(2, ON_BLUE)
        events = []
        for seen in session.run(FakeSource(41, [RED, BLUE])):
            events += [seen] if isinstance(seen, EventSeen) else []
            if isinstance(seen, FrameSeen) and seen.index == 11:
                while not model.calls:
                    time.sleep(0.001)
            if isinstance(seen, FrameSeen) and seen.index == 40:
                assert events == []
                go_on.set()
    assert 2 <= len(model.calls) <= 3  # the last two events may come after the second call has begun
    assert sum(len(call.clips) for call in model.calls) == 8
    assert spans(events, 1) == spans(events, 2) == [(0, 10), (10, 20), (20, 30), (30, 40)]
    assert all(call.previous == [] for call in model.calls)


def test_a_caption_that_fails_is_told_and_the_others_are_made() -> None:
    """Both clips go in one call, which fails; each is then tried alone."""
    seen = follow(FakeSource(9, [RED, BLUE]), [(1, ON_RED, 0), (2, ON_BLUE, 0)], FakeVideoModel(refuse(2)))
    (fault,) = of(Fault, seen)
    assert (fault.track_id, fault.index) == (2, 8)
    assert "no words" in fault.what
    assert {event.track_id: bool(event.texts) for event in of(EventSeen, seen)} == {1: True, 2: False}


def test_a_model_that_gives_too_few_captions_is_told() -> None:
    class Stingy(FakeVideoModel):
        def describe_clips(self, *arguments: object, **options: object) -> list[dict[str, str]]:
            return []

    seen = follow(FakeSource(15, [RED]), model=Stingy())
    assert len(of(Fault, seen)) == len(of(EventSeen, seen)) == 2


def test_captions_that_are_too_slow_are_left_out_and_never_hold_a_frame_up() -> None:
    """The first call is held until all frames have been given; three clips may wait, so the oldest are left out."""
    go_on = threading.Event()
    model = FakeVideoModel(Trouble(captions=lambda number, clips: go_on.wait(10) and None if number == 0 else None))
    with StreamSession(model, rule=EVERY_10, waiting=3) as session:
        session.prompt(1, ON_RED)
        seen = []
        for one in session.run(FakeSource(81, [RED])):
            seen.append(one)
            if isinstance(one, FrameSeen) and one.index == 11:
                while not model.calls:
                    time.sleep(0.001)
            if isinstance(one, FrameSeen) and one.index == 80:
                assert of(EventSeen, seen) == []
                go_on.set()
    assert spans(seen) == [(first, first + 10) for first in range(0, 80, 10)]
    worded = [event.first for event in of(EventSeen, seen) if event.texts]
    left_out = [fault.index - 10 for fault in of(Fault, seen)]
    assert worded[0] == 0
    assert sorted([*worded, *left_out]) == list(range(0, 80, 10))
    assert 3 <= len(left_out) <= 4  # the last event comes while the queue begins to move
    assert left_out == list(range(10, 10 + 10 * len(left_out), 10))
    assert all("slower than events" in fault.what for fault in of(Fault, seen))
