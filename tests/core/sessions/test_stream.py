"""A session: frames, events and prompts, directions, and no thread left behind."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pam_core.contracts import RegionModel, ReversibleSource
from pam_core.errors import VideoError
from pam_core.sessions.events import EventRule
from pam_core.sessions.session import Direction, StreamSession
from pam_core.types import Prompt
from pam_core.video import Fault, Frame, FrameResult, TrackEvent
from tests.core.sessions.sessions import (
    BLUE,
    EVERY_10,
    ON_BLUE,
    ON_RED,
    RED,
    TOO_LONG,
    caption_threads,
    follow,
    of,
    spans,
)
from tests.factories import FakeModel
from tests.fake_video import FakeSource, FakeVideoModel, OneWay, Square, Trouble, hidden, steady
from tests.paths import ROOT


def test_the_fakes_keep_the_contracts() -> None:
    assert isinstance(FakeVideoModel(), RegionModel)
    assert isinstance(FakeSource(1), ReversibleSource)
    assert not isinstance(OneWay(iter([])), ReversibleSource)


def test_every_frame_is_given_with_its_regions() -> None:
    seen = follow(FakeSource(25, [RED, BLUE]), [(1, ON_RED, 0), (7, ON_BLUE, 5)])
    frames = of(FrameResult, seen)
    assert [frame.index for frame in frames] == list(range(25))
    assert [frame.time for frame in frames] == [index / 25 for index in range(25)]
    assert [[region.track_id for region in frame.regions] for frame in frames] == [[1]] * 5 + [[1, 7]] * 20
    assert frames[5].regions[1].mask.box == (40, 30, 48, 38)
    assert of(Fault, seen) == []


def test_frames_are_given_while_nothing_is_followed() -> None:
    seen = follow(FakeSource(5), [])
    assert [(type(one), one.regions) for one in of(FrameResult, seen)] == [(FrameResult, ())] * 5
    assert len(seen) == 5


def test_events_share_their_boundaries_and_are_captioned_in_order() -> None:
    model = FakeVideoModel()
    seen = follow(FakeSource(35, [RED]), model=model, languages=("en", "zh"))
    assert spans(seen) == [(0, 10), (10, 20), (20, 30), (30, 34)]
    first = of(TrackEvent, seen)[0]
    assert (first.start, first.end) == (0.0, 0.4)
    assert first.texts == {"en": "A red thing, frames 0 to 10.", "zh": "红色的东西，第0到10帧。"}
    assert [(clip.first, clip.last) for call in model.calls for clip in call.clips] == spans(seen)


def test_each_object_has_its_own_events() -> None:
    seen = follow(FakeSource(31, [RED, BLUE]), [(1, ON_RED, 0), (2, ON_BLUE, 7)])
    assert spans(seen, 1) == [(0, 10), (10, 20), (20, 30)]
    assert spans(seen, 2) == [(7, 17), (17, 27), (27, 30)]
    assert {event.texts["en"].split(",")[0] for event in of(TrackEvent, seen)} == {"A red thing", "A blue thing"}


def test_an_object_on_the_last_frame_has_an_event() -> None:
    assert spans(follow(FakeSource(6, [RED]), [(1, Prompt.at(8, 14), 5)])) == [(5, 5)]


@given(st.integers(0, 60), st.sampled_from([0, 500]), st.integers(1, 20), st.integers(0, 3))
@settings(max_examples=25)
def test_every_frame_of_an_object_belongs_to_an_event(begun: int, history: int, least: int, more: int) -> None:
    route = hidden(lambda index: (20 + abs(index % 40 - 20), 12), 25, 45)
    source = FakeSource(100, [Square("red", route)])
    place = route(begun)
    prompt = Prompt.at(place[0] + 2, 14) if place else Prompt.at(1, 1)
    seen = follow(source, [(1, prompt, begun)], rule=EventRule(least, least + 9 * more), history=history)
    found = spans(seen)
    assert found[0][0] == begun
    assert found[-1][1] == 99
    assert all(before[1] == after[0] for before, after in itertools.pairwise(found))
    assert all(least <= last - first <= least + 9 * more for first, last in found[:-1])


def test_change_ends_events() -> None:
    """Steady, then two seconds out of the picture, then back: three events, the middle one without words."""
    source = FakeSource(120, [Square("red", hidden(steady(20, 20), 40, 79))])
    model = FakeVideoModel()
    seen = follow(source, [(1, Prompt.at(24, 24), 0)], model, rule=EventRule(10, 1000))
    assert spans(seen) == [(0, 44), (44, 84), (84, 119)]
    assert [bool(event.texts) for event in of(TrackEvent, seen)] == [True, False, True]
    assert {region.track_id for frame in of(FrameResult, seen) for region in frame.regions} == {1}
    assert [clip.found for call in model.calls for clip in call.clips] == [40, 36]


def test_without_captions_no_model_is_asked_and_no_thread_is_started() -> None:
    model = FakeVideoModel()
    with StreamSession(model, rule=EVERY_10, captions=False) as session:
        session.prompt(1, ON_RED)
        for seen in session.run(FakeSource(25, [RED])):
            assert caption_threads() == []
            assert not isinstance(seen, TrackEvent) or seen.texts == {}
    assert model.calls == []


def test_prompts_from_another_thread_take_the_next_frame() -> None:
    with StreamSession(FakeVideoModel(), rule=TOO_LONG) as session:
        counts = []
        for seen in session.run(FakeSource(20, [RED])):
            if isinstance(seen, FrameResult):
                counts.append(len(seen.regions))
                if seen.index == 9:
                    thread = threading.Thread(target=session.prompt, args=(1, ON_RED))
                    thread.start()
                    thread.join()
    assert counts == [0] * 10 + [1] * 10


def test_a_prompt_for_a_frame_that_has_gone_by_is_a_fault_and_nothing_is_begun() -> None:
    with StreamSession(FakeVideoModel(), rule=TOO_LONG) as session:
        seen = []
        for one in session.run(FakeSource(20, [RED])):
            seen.append(one)
            if isinstance(one, FrameResult) and one.index == 9:
                session.prompt(4, ON_RED, frame=8)
    (fault,) = of(Fault, seen)
    assert (fault.index, fault.track_id) == (10, 4)
    assert "frame 8 has passed" in fault.what
    assert not any(frame.regions for frame in of(FrameResult, seen))


def test_a_prompt_for_a_frame_that_could_not_be_had_is_a_fault() -> None:
    source = FakeSource(9, [RED], change=lambda frame: Fault(4, 0.16, "Lost.") if frame.index == 4 else frame)
    seen = follow(source, [(1, ON_RED, 4)])
    assert [fault.index for fault in of(Fault, seen)] == [4, 5]
    assert "frame 4 has passed" in of(Fault, seen)[1].what
    assert len(of(FrameResult, seen)) == 8


def test_a_prompt_for_a_frame_that_never_comes_is_a_fault() -> None:
    (fault,) = of(Fault, follow(FakeSource(5, [RED]), [(1, ON_RED, 50)]))
    assert (fault.index, fault.track_id) == (4, 1)
    assert "frame 50 never came" in fault.what


def test_a_bad_prompt_is_a_fault_when_its_frame_comes() -> None:
    seen = follow(FakeSource(20, [RED, BLUE]), [(1, Prompt.at(500, 3), 3), (2, ON_BLUE, 3)])
    (fault,) = of(Fault, seen)
    assert (fault.index, fault.track_id) == (3, 1)
    assert "(500, 3) outside the picture" in fault.what
    assert [region.track_id for region in of(FrameResult, seen)[-1].regions] == [2]


def test_one_prompt_that_the_tracker_refuses_does_not_spoil_the_others() -> None:
    nothing = Prompt(points=((6, 14), (6, 15)), labels=(1, 0))
    seen = follow(FakeSource(20, [RED, BLUE]), [(1, nothing, 0), (2, ON_BLUE, 0)])
    (fault,) = of(Fault, seen)
    assert fault.track_id == 1
    assert "nothing under it" in fault.what
    assert [region.track_id for region in of(FrameResult, seen)[0].regions] == [2]


def test_a_correction_keeps_the_object() -> None:
    seen = follow(FakeSource(20, [RED, BLUE]), [(1, ON_RED, 0), (1, ON_BLUE, 5), (1, ON_RED, 8), (1, ON_BLUE, 8)])
    boxes = [frame.regions[0].mask.box[0] for frame in of(FrameResult, seen)]
    assert boxes[:5] == [4, 4, 4, 5, 5]
    assert boxes[5:] == [40] * 15
    assert spans(seen) == [(0, 10), (10, 19)]


def test_removal_ends_the_event_and_takes_back_what_waits() -> None:
    with StreamSession(FakeVideoModel(), rule=TOO_LONG) as session:
        session.prompt(1, ON_RED, 0)
        session.prompt(1, ON_RED, 15)
        seen = []
        for one in session.run(FakeSource(20, [RED])):
            seen.append(one)
            if isinstance(one, FrameResult) and one.index == 9:
                session.remove(1)
                session.remove(99)
    assert [len(frame.regions) for frame in of(FrameResult, seen)] == [1] * 10 + [0] * 10
    assert spans(seen) == [(0, 9)]
    assert of(Fault, seen) == []


def test_an_object_that_is_never_found_is_a_fault() -> None:
    model = FakeVideoModel(Trouble(frames_lost=range(100)))
    seen = follow(FakeSource(40, [RED]), model=model)
    (fault,) = of(Fault, seen)
    assert fault.track_id == 1
    assert "was not visible from frame 0 to 10" in fault.what
    assert model.calls == []
    assert len(of(TrackEvent, seen)) == 4


# directions


def test_backward_from_the_last_prompted_frame() -> None:
    model = FakeVideoModel()
    seen = follow(FakeSource(50, [RED, BLUE]), [(1, Prompt.at(12, 14), 30), (2, ON_BLUE, 12)], model, "backward")
    assert [frame.index for frame in of(FrameResult, seen)] == list(range(30, -1, -1))
    assert spans(seen, 1) == [(20, 30), (10, 20), (0, 10)]
    assert spans(seen, 2) == [(2, 12), (0, 2)]
    assert all(event.start < event.end for event in of(TrackEvent, seen))
    assert all(before == {} for call in model.calls for before in call.previous)  # what comes later is no history
    assert of(Fault, seen) == []


def test_both_directions_from_the_first_prompted_frame() -> None:
    model = FakeVideoModel()
    seen = follow(FakeSource(40, [RED, BLUE]), [(2, ON_BLUE, 30), (1, Prompt.at(10, 14), 20)], model, "both")
    frames = of(FrameResult, seen)
    assert [frame.index for frame in frames] == [*range(20, 40), *range(19, -1, -1)]
    assert [[region.track_id for region in frame.regions] for frame in frames] == [
        *[[1]] * 10,
        *[[1, 2]] * 10,
        *[[1]] * 20,
    ]
    assert spans(seen) == [(20, 30), (30, 39), (10, 20), (0, 10)]
    assert len(model.trackers) == 2
    assert of(Fault, seen) == []


def test_both_from_the_next_frame_is_from_the_first() -> None:
    seen = follow(FakeSource(10, [RED]), [(1, ON_RED, None)], direction="both")
    assert [frame.index for frame in of(FrameResult, seen)] == list(range(10))


def test_both_does_not_bring_back_what_was_removed() -> None:
    with StreamSession(FakeVideoModel(), rule=EVERY_10) as session:
        session.prompt(1, Prompt.at(10, 14), 20)
        seen = []
        for one in session.run(FakeSource(40, [RED]), "both"):
            seen.append(one)
            if isinstance(one, FrameResult) and one.index == 30:
                session.remove(1)
    assert [frame.index for frame in of(FrameResult, seen) if frame.regions] == list(range(20, 31))


def test_bad_prompts_are_told_once_in_both_directions() -> None:
    assert len(of(Fault, follow(FakeSource(9, [RED]), [(1, Prompt.at(99, 99), 4)], direction="both"))) == 1


@pytest.mark.parametrize("direction", ["backward", "both"])
def test_a_source_that_goes_forward_only(direction: Direction) -> None:
    with pytest.raises(VideoError, match="OneWay, which goes forward only"):
        follow(OneWay(iter(FakeSource(5, [RED]))), direction=direction)


@pytest.mark.parametrize(
    ("prompts", "direction", "message"),
    [
        ([], "backward", "no prompt"),
        ([], "both", "no prompt"),
        ([(1, ON_RED, None)], "backward", "without a frame"),
        ([], "sideways", "wanted forward, backward or both"),
    ],
)
def test_directions_that_make_no_sense(prompts: list, direction: Direction, message: str) -> None:
    with pytest.raises(VideoError, match=message):
        follow(FakeSource(5, [RED]), prompts, direction=direction)


# the end


def test_a_second_run_begins_anew() -> None:
    with StreamSession(FakeVideoModel(), rule=EVERY_10) as session:
        for _ in range(2):
            session.prompt(1, ON_RED, 0)
            assert spans(list(session.run(FakeSource(15, [RED])))) == [(0, 10), (10, 14)]
        assert not any(frame.regions for frame in of(FrameResult, list(session.run(FakeSource(5, [RED])))))


def test_one_run_at_a_time() -> None:
    with StreamSession(FakeVideoModel()) as session:
        first = session.run(FakeSource(5))
        next(first)
        with pytest.raises(VideoError, match="one at a time"):
            next(session.run(FakeSource(5)))
        assert len(list(first)) == 4


def test_a_closed_session_takes_no_more() -> None:
    session = StreamSession(FakeVideoModel())
    session.close()
    session.close()
    with pytest.raises(VideoError, match="closed"):
        session.run(FakeSource(5))


def test_stopping_early_leaves_no_thread() -> None:
    """`close` of the generator waits for the call at hand, and what waits behind it is dropped."""
    model = FakeVideoModel(Trouble(caption_seconds=0.05))
    session = StreamSession(model, rule=EventRule(1, 1))
    session.prompt(1, ON_RED)
    run = session.run(FakeSource(1000, [RED]))
    for seen in run:
        if isinstance(seen, FrameResult) and seen.index == 20:
            break
    assert caption_threads() != []
    run.close()  # type: ignore[attr-defined]
    assert caption_threads() == []
    assert len(model.calls) < 20


def test_closing_ends_the_run_from_another_thread() -> None:
    session = StreamSession(FakeVideoModel(Trouble(caption_seconds=0.02)), rule=EVERY_10)
    session.prompt(1, ON_RED)
    endless = OneWay(map(FakeSource(1, [replace(RED, path=steady(4, 10))]).frame, itertools.count()))
    count = 0
    for _ in session.run(endless):
        count += 1
        if count == 200:
            thread = threading.Thread(target=session.close)
            thread.start()
            thread.join()
            assert caption_threads() == []
    assert count < 210


def test_an_interrupt_leaves_no_thread() -> None:
    def interrupted(frame: Frame) -> Frame:
        if frame.index == 30:
            raise KeyboardInterrupt
        return frame

    with pytest.raises(KeyboardInterrupt):
        follow(FakeSource(50, [RED], change=interrupted), model=FakeVideoModel(Trouble(caption_seconds=0.02)))
    assert caption_threads() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [({"history": -1}, "history"), ({"waiting": 0}, "waiting"), ({"languages": ()}, "no language")],
)
def test_settings_that_make_no_sense(options: dict, message: str) -> None:
    with pytest.raises(VideoError, match=message):
        StreamSession(FakeVideoModel(), **options)


def test_a_model_that_follows_nothing() -> None:
    with pytest.raises(VideoError, match="tracks no objects"):
        StreamSession(FakeModel())


@pytest.mark.e2e
def test_memory_is_flat_over_20_000_frames() -> None:
    """An object that comes and goes, and is removed and prompted anew under another id; captions with history."""
    shown = FakeSource(1, [Square("red", lambda index: None if index % 300 > 200 else (4 + index % 20, 4))], 32, 24)
    process, resident = psutil.Process(), []
    with StreamSession(FakeVideoModel(), rule=EventRule(10, 40)) as session:
        session.prompt(0, Prompt.at(6, 6))
        for seen in session.run(OneWay(shown.frame(index) for index in range(20_000))):
            if isinstance(seen, FrameResult) and seen.index % 300 == 0:
                session.remove(seen.index // 300 - 1)
                session.prompt(seen.index // 300, Prompt.at(7, 7))
            if isinstance(seen, FrameResult) and seen.index % 1000 == 999:
                gc.collect()
                resident.append(process.memory_info().rss / 2**20)
    assert resident[-1] - resident[1] < 4


@pytest.mark.e2e
def test_ctrl_c_ends_the_process() -> None:
    """In the middle of an endless stream with slow captions: a traceback of the interrupt, and nothing that hangs."""
    program = (
        "import itertools\n"
        "from pam_core.sessions.session import EventRule, StreamSession\n"
        "from pam_core.types import Prompt\n"
        "from tests.fake_video import *\n"
        "shown = FakeSource(1, [Square('red', steady(4, 10))])\n"
        "session = StreamSession(FakeVideoModel(Trouble(caption_seconds=0.3)), rule=EventRule(5, 5))\n"
        "session.prompt(1, Prompt.at(6, 12))\n"
        "for seen in session.run(OneWay(map(shown.frame, itertools.count()))):\n"
        "    print(type(seen).__name__, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "core")])},
        text=True,
    )
    assert process.stdout is not None
    while process.stdout.readline().strip() != "TrackEvent":
        pass
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode != 0
    assert errors.rstrip().endswith("KeyboardInterrupt")
