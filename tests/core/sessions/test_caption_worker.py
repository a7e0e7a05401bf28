"""CaptionWorker of events: their history, calls that hold many, failures, and what is left out when they are slow."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest

from pam_core.questions import BatchDescription, Clip, Description, Generation, Question
from pam_core.sessions.caption_worker import CaptionWorker
from pam_core.sessions.session import Direction, StreamSession
from pam_core.video import Fault, FrameResult, SessionResult, TrackEvent
from tests.core.sessions.sessions import (
    BLUE,
    EVERY_10,
    ON_BLUE,
    ON_RED,
    RED,
    STILL_RED,
    caption_threads,
    follow,
    of,
    refuse,
    spans,
)
from tests.fake_video import FakeClip, FakeSource, FakeVideoModel, OneWay, Trouble


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
            if isinstance(seen, FrameResult) and seen.index == 10:
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
    captions = CaptionWorker(model, ("en",), Generation(), 500, 10, live=True)
    for first in (0, 10):
        captions.put(TrackEvent(1, first, first + 10, 0.0, 1.0), FakeClip(1, first, first + 10, "red", 10))
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
            events += [seen] if isinstance(seen, TrackEvent) else []
            if isinstance(seen, FrameResult) and seen.index == 11:
                while not model.calls:
                    time.sleep(0.001)
            if isinstance(seen, FrameResult) and seen.index == 40:
                assert events == []
                go_on.set()
    assert 2 <= len(model.calls) <= 3  # the last two events may come after the second call has begun
    assert sum(len(call.clips) for call in model.calls) == 8
    assert spans(events, 1) == spans(events, 2) == [(0, 10), (10, 20), (20, 30), (30, 40)]
    assert all(not any(call.previous) for call in model.calls)


def test_a_caption_that_fails_is_told_and_the_others_are_made() -> None:
    """Both clips go in one call, which fails; each is then tried alone."""
    seen = follow(FakeSource(9, [RED, BLUE]), [(1, ON_RED, 0), (2, ON_BLUE, 0)], FakeVideoModel(refuse(2)))
    (fault,) = of(Fault, seen)
    assert (fault.track_id, fault.index) == (2, 8)
    assert "no words" in fault.what
    assert {event.track_id: bool(event.texts) for event in of(TrackEvent, seen)} == {1: True, 2: False}


def test_a_model_that_gives_too_few_captions_is_told() -> None:
    class Stingy(FakeVideoModel):
        def describe(self, questions: Sequence[Question]) -> Description:
            return BatchDescription(questions, lambda group: [])

    seen = follow(FakeSource(15, [RED]), model=Stingy())
    assert len(of(Fault, seen)) == len(of(TrackEvent, seen)) == 2


def test_captions_that_are_too_slow_for_a_camera_are_left_out_and_never_hold_a_frame_up() -> None:
    """The first call is held until all frames have been given; three clips may wait, so the oldest are left out."""
    go_on = threading.Event()
    model = FakeVideoModel(Trouble(captions=lambda number, clips: go_on.wait(10) and None if number == 0 else None))
    with StreamSession(model, rule=EVERY_10, waiting=3) as session:
        session.prompt(1, ON_RED)
        seen = []
        for one in session.run(OneWay(iter(FakeSource(81, [RED])))):
            seen.append(one)
            if isinstance(one, FrameResult) and one.index == 11:
                while not model.calls:
                    time.sleep(0.001)
            if isinstance(one, FrameResult) and one.index == 80:
                assert of(TrackEvent, seen) == []
                go_on.set()
    assert spans(seen) == [(first, first + 10) for first in range(0, 80, 10)]
    worded = [event.first for event in of(TrackEvent, seen) if event.texts]
    left_out = [fault.index - 10 for fault in of(Fault, seen)]
    assert worded[0] == 0
    assert sorted([*worded, *left_out]) == list(range(0, 80, 10))
    assert 3 <= len(left_out) <= 4  # the last event comes while the queue begins to move
    assert left_out == list(range(10, 10 + 10 * len(left_out), 10))
    assert all("slower than events" in fault.what for fault in of(Fault, seen))


@pytest.mark.parametrize("history", [0, 500])
def test_a_file_waits_for_captions_and_every_clip_has_its_own_or_its_error(history: int) -> None:
    """Eighty clips of two objects, of which two may wait; the model fails for some."""

    def captions(number: int, clips: Sequence[Clip]) -> None:
        time.sleep(0.02)
        if any(clip.first % 50 == 0 for clip in clips):
            raise RuntimeError("no words")

    model = FakeVideoModel(Trouble(captions=captions))
    prompts = [(1, ON_RED, 0), (2, ON_BLUE, 0)]
    seen = follow(FakeSource(401, [STILL_RED, BLUE]), prompts, model, history=history, waiting=2)
    for track_id in (1, 2):
        assert spans(seen, track_id) == [(first, first + 10) for first in range(0, 400, 10)]
    assert all(bool(event.texts) == (event.first % 50 != 0) for event in of(TrackEvent, seen))
    assert sorted((fault.track_id, fault.index) for fault in of(Fault, seen)) == [
        (track_id, first + 10) for track_id in (1, 2) for first in range(0, 400, 50)
    ]
    assert all("no words" in fault.what for fault in of(Fault, seen))


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_frames_of_a_file_are_read_only_as_fast_as_captions_are_made(direction: Direction) -> None:
    """While a call takes its time, two clips wait, and no frame is read beyond the end of the next one."""
    go_on = threading.Event()
    read: list[int] = []
    source = FakeSource(201, [STILL_RED], change=lambda frame: read.append(frame.index) or frame)  # type: ignore[func-returns-value]
    model = FakeVideoModel(Trouble(captions=lambda number, clips: go_on.wait(10) and None))
    seen: list[SessionResult] = []
    prompt = (1, ON_RED, 0 if direction == "forward" else 200)
    thread = threading.Thread(target=lambda: seen.extend(follow(source, [prompt], model, direction, waiting=2)))
    thread.start()
    deadline = time.monotonic() + 5
    while len(read) < 41 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    held = len(read)
    go_on.set()
    thread.join(10)
    assert held == 41
    assert len(read) == 201
    assert len(of(TrackEvent, seen)) == 20
    assert all(event.texts for event in of(TrackEvent, seen))


def test_closing_a_session_that_waits_for_captions_ends_its_run() -> None:
    go_on = threading.Event()
    session = StreamSession(
        FakeVideoModel(Trouble(captions=lambda number, clips: go_on.wait(10) and None)), rule=EVERY_10, waiting=1
    )
    session.prompt(1, ON_RED, 0)
    run = session.run(FakeSource(201, [STILL_RED]))
    thread = threading.Thread(target=lambda: list(run))
    thread.start()
    time.sleep(0.1)
    closing = threading.Thread(target=session.close)
    closing.start()
    time.sleep(0.05)
    assert closing.is_alive(), "it waits for the call at hand"
    go_on.set()
    for each in (closing, thread):
        each.join(5)
        assert not each.is_alive()
    assert caption_threads() == []
