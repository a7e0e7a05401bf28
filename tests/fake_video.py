"""Made-up videos and a model that follows objects in them: a coloured square on white, found again by its colour.

    source = FakeSource(60, [Square("red", path=steady(10, 20, dx=1))])
    model = FakeVideoModel()

Everything follows the contracts of `pam_core.contracts` to the letter, and can be told to misbehave: `Trouble`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pam_core.contracts import ModelInfo
from pam_core.errors import PromptError, VideoError
from pam_core.masks import Mask
from pam_core.questions import Answer, BatchDescription, Clip, Description, Question
from pam_core.types import Prompt, Region
from pam_core.video import Fault, Frame
from tests.factories import CHINESE, COLOURS, FakeModel, _nearest_colour

FAKE_VIDEO_INFO = ModelInfo(
    name="fake-video",
    revision="1",
    description="a made-up model that follows colours",
    licence="none",
    tasks={"label": frozenset({"en", "zh"}), "brief": frozenset({"en", "zh"})},
    video=True,
)

Route = Callable[[int], tuple[float, float] | None]
"""Where the top left corner of a square is on a frame (x, y); None where it is not in the picture."""


def steady(x: float, y: float, dx: float = 0.0, dy: float = 0.0) -> Route:
    """Straight on, a number of pixels a frame."""
    return lambda index: (x + dx * index, y + dy * index)


def hidden(path: Route, first: int, last: int) -> Route:
    """The same, but not in the picture from frame `first` to `last`, both included."""
    return lambda index: None if first <= index <= last else path(index)


@dataclass(frozen=True)
class Square:
    """A square of a named colour, `side` pixels wide."""

    colour: str
    path: Route
    side: int = 8


@dataclass(frozen=True)
class FakeSource:
    """`count` made-up frames, `fps` a second, forward or backward. `change` is told each frame and gives what comes
    in its place: another frame, a fault, or nothing at all.
    """

    count: int
    squares: Sequence[Square] = ()
    width: int = 64
    height: int = 48
    fps: float = 25.0
    change: Callable[[Frame], Frame | Fault | None] = lambda frame: frame

    def frame(self, index: int) -> Frame:
        picture = np.full((self.height, self.width, 3), 255, np.uint8)
        for square in self.squares:
            place = square.path(index)
            if place is not None:
                x, y = round(place[0]), round(place[1])
                x1, y1 = max(x, 0), max(y, 0)
                picture[y1 : max(y + square.side, 0), x1 : max(x + square.side, 0)] = COLOURS[square.colour]
        return Frame(index, index / self.fps, picture)

    def __iter__(self) -> Iterator[Frame | Fault]:
        return self._frames(range(self.count))

    def reversed_from(self, index: int) -> Iterator[Frame | Fault]:
        return self._frames(range(index, -1, -1))

    def _frames(self, indices: range) -> Iterator[Frame | Fault]:
        for index in indices:
            item = self.change(self.frame(index))
            if item is not None:
                yield item


@dataclass
class OneWay:
    """A source that goes forward only, as a camera does. May be endless."""

    frames: Iterator[Frame | Fault]

    def __iter__(self) -> Iterator[Frame | Fault]:
        return self.frames


@dataclass
class Trouble:
    """What goes wrong, by frame number; `frames_lost` are those on which every object is lost from sight.

    `blames` is the object that an error in `step` names, where it names one. `seconds` are slept on each step,
    `caption_seconds` in each call for captions; `captions` raises before the nth such call, counted from 0.
    """

    steps: frozenset[int] | range = frozenset()
    blames: int | None = None
    signatures: frozenset[int] | range = frozenset()
    cuts: bool = False
    frames_lost: frozenset[int] | range = frozenset()
    seconds: float = 0.0
    caption_seconds: float = 0.0
    captions: Callable[[int, Sequence[Clip]], None] = lambda number, clips: None


@dataclass(frozen=True)
class FakeClip:
    """One object from frame to frame, in the order they were seen in, and on how many of them it was found."""

    track_id: int
    first: int
    last: int
    colour: str
    found: int


@dataclass
class _Followed:
    colour: int
    prompt: Prompt
    first: int
    found: int = 0
    area: int = 0


class FakeTracker:
    """Follows colours: one object is everything of the colour that its prompt is on."""

    def __init__(self, info: ModelInfo, trouble: Trouble) -> None:
        self._info, self._trouble = info, trouble
        self._objects: dict[int, _Followed] = {}
        self._frame: Frame | None = None
        self._finder = FakeModel(info)

    def add(self, frame: Frame, prompts: Mapping[int, Prompt]) -> list[Region]:
        height, width = frame.picture.shape[:2]
        for prompt in prompts.values():
            prompt.check(width, height)
        assert self._frame is None or self._frame.index == frame.index, "add wants the frame that is looked at"
        self._frame = frame
        embedding = self._finder.embed([frame.picture])[0]
        nearest = _nearest_colour(frame.picture)
        regions = []
        for track_id, prompt in prompts.items():
            mask = self._finder.segment([(embedding, prompt)])[0][0].mask.array
            if not mask.any():
                raise PromptError(f"Got a prompt for object {track_id} with nothing under it; wanted an object.")
            colour = int(np.bincount(nearest[mask]).argmax())
            before = self._objects.get(track_id)
            first = frame.index if before is None else before.first
            self._objects[track_id] = _Followed(colour, prompt, first)
            regions.append(replace(self._look(track_id, frame, nearest), prompt=prompt))
        return regions

    def step(self, frame: Frame) -> list[Region]:
        if self._trouble.seconds:  # a sleep of no time is none either
            time.sleep(self._trouble.seconds)
        assert self._frame is not None, "step wants an object first"
        assert self._frame.picture.shape == frame.picture.shape
        self._frame = frame
        if frame.index in self._trouble.steps:
            if self._trouble.blames is not None:
                raise VideoError("The made-up tracker lost its way.", self._trouble.blames)
            raise RuntimeError("made-up trouble")
        nearest = _nearest_colour(frame.picture)
        return [self._look(track_id, frame, nearest) for track_id in sorted(self._objects)]

    def _look(self, track_id: int, frame: Frame, nearest: npt.NDArray[np.int64]) -> Region:
        followed = self._objects[track_id]
        array = nearest == followed.colour
        if frame.index in self._trouble.frames_lost:
            array = np.zeros_like(array)
        mask = Mask.from_array(array)
        followed.area = mask.area
        followed.found += followed.area > 0
        return Region(
            mask,
            self._info.ref,
            presence=0.95 if followed.area else 0.05,
            predicted_iou=0.9,
            track_id=track_id,
            frame=frame.index,
            time=frame.time,
        )

    def remove(self, track_id: int) -> None:
        self._objects.pop(track_id, None)

    def signature(self, track_id: int) -> npt.NDArray[np.float32]:
        assert self._frame is not None
        if self._frame.index in self._trouble.signatures:
            raise RuntimeError("made-up trouble with looks")
        unit = np.zeros(len(COLOURS), np.float32)
        unit[self._objects[track_id].colour] = 1
        return unit

    def cut(self, track_id: int) -> FakeClip:
        assert self._frame is not None
        if self._trouble.cuts:
            raise RuntimeError("made-up trouble with clips")
        followed = self._objects[track_id]
        colour = list(COLOURS)[followed.colour]
        clip = FakeClip(track_id, followed.first, self._frame.index, colour, followed.found)
        followed.first, followed.found = self._frame.index, int(followed.area > 0)
        return clip


@dataclass
class Call:
    """One batch of clips that was captioned. `previous` holds the captions before, by language code."""

    clips: list[FakeClip]
    languages: tuple[str, ...]
    previous: list[dict[str, str]]


class FakeVideoModel(FakeModel):
    """Captions name the colour and the frames: "A red thing, frames 0 to 24." `calls` are those for captions."""

    def __init__(self, trouble: Trouble | None = None, info: ModelInfo = FAKE_VIDEO_INFO) -> None:
        super().__init__(info)
        self.trouble = trouble or Trouble()
        self.calls: list[Call] = []
        self.trackers: list[FakeTracker] = []

    def open_tracker(self) -> FakeTracker:
        self.trackers.append(FakeTracker(self.info, self.trouble))
        return self.trackers[-1]

    def describe(self, questions: Sequence[Question]) -> Description:
        if all(question.clip is None for question in questions):
            return super().describe(questions)
        return BatchDescription(questions, self._caption)

    def _caption(self, questions: Sequence[Question]) -> list[Answer]:
        clips: dict[int, FakeClip] = {}
        previous: dict[int, dict[str, str]] = {}
        for question in questions:
            assert isinstance(question.clip, FakeClip)
            clips[id(question.clip)] = question.clip
            texts = previous.setdefault(id(question.clip), {})
            texts.update({question.language: question.previous} if question.previous else {})
        number = len(self.calls)
        languages = tuple(dict.fromkeys(question.language for question in questions))
        self.calls.append(Call(list(clips.values()), languages, list(previous.values())))
        time.sleep(self.trouble.caption_seconds)
        self.trouble.captions(number, list(clips.values()))
        templates = {
            "en": "A {colour} thing, frames {first} to {last}.",
            "zh": "{chinese}色的东西，第{first}到{last}帧。",
        }
        answers = []
        for question in questions:
            assert isinstance(question.clip, FakeClip)
            values = {**vars(question.clip), "chinese": CHINESE[question.clip.colour]}
            answers.append(Answer(question, templates[question.language].format(**values)))
        return answers
