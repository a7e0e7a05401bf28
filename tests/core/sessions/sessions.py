"""What the tests of sessions share: two squares, prompts on them, and everything a session gives."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TypeVar

from pam_core.questions import Clip
from pam_core.sessions.events import EventRule
from pam_core.sessions.session import Direction, StreamSession
from pam_core.types import Prompt
from pam_core.video import Fault, FrameResult, SessionResult, TrackEvent
from tests.fake_video import FakeVideoModel, Square, Trouble, steady

RED, BLUE = Square("red", steady(4, 10, dx=0.2)), Square("blue", steady(40, 30))
STILL_RED = Square("red", steady(4, 10))
ON_RED, ON_BLUE = Prompt.at(6, 14), Prompt.at(44, 34)
EVERY_10 = EventRule(10, 10)
TOO_LONG = EventRule(1000, 1000)
Kind = TypeVar("Kind", FrameResult, TrackEvent, Fault)


def of(kind: type[Kind], seen: Sequence[SessionResult]) -> list[Kind]:
    return [one for one in seen if isinstance(one, kind)]


def follow(
    source: object,
    prompts: Sequence[tuple[int, Prompt, int | None]] = ((1, ON_RED, 0),),
    model: FakeVideoModel | None = None,
    direction: Direction = "forward",
    **options: object,
) -> list[SessionResult]:
    """Everything a session gives."""
    with StreamSession(model or FakeVideoModel(), **{"rule": EVERY_10, **options}) as session:  # type: ignore[arg-type]
        for prompt in prompts:
            session.prompt(*prompt)
        return list(session.run(source, direction))  # type: ignore[arg-type]


def spans(seen: Sequence[SessionResult], track_id: int = 1) -> list[tuple[int, int]]:
    return [(event.first, event.last) for event in of(TrackEvent, seen) if event.track_id == track_id]


def caption_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "pam-captions"]


def refuse(*track_ids: int) -> Trouble:
    def captions(number: int, clips: Sequence[Clip]) -> None:
        if any(clip.track_id in track_ids for clip in clips):
            raise RuntimeError("no words")

    return Trouble(captions=captions)
