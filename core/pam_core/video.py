"""Videos as values: frames in, what was seen of them out. Plain frozen values and protocols; no torch, no codec.

A model follows objects through a `Tracker`, one frame after the other and in one direction; sessions (in
`inference.stream`) feed it, cut what it saw into clips, one an event, and have the model describe each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pam_core.contracts import Generation, Picture
from pam_core.types import Prompt, Region

VIDEO_SCHEMA = "pam.video/1"


class VideoError(ValueError):
    """A video that cannot be read or followed: says what was got, what was wanted and what to do.

    `track_id` is set by a tracker where one object only is what it cannot follow.
    """

    def __init__(self, what: str, track_id: int | None = None) -> None:
        super().__init__(what)
        self.track_id = track_id


@dataclass(frozen=True)
class Frame:
    """One picture of a video: its number from 0, and its time in seconds from the start."""

    index: int
    time: float
    picture: Picture


class Clip(Protocol):
    """What a tracker saw of one object from one frame to another, ready to be described. Opaque but for this."""

    track_id: int
    first: int
    last: int


@runtime_checkable
class Tracker(Protocol):
    """Follows any number of objects. Memory does not grow with the number of frames.

    Regions carry `track_id`, `frame` and `time`. `presence` is the probability that the object is there; where it is
    not, its mask is empty, and it may be found again. Frames are given in order, forward or backward.
    """

    def add(self, frame: Frame, prompts: Mapping[int, Prompt]) -> list[Region]:
        """Begin to follow objects, or correct those that are followed, on the frame that is being looked at: the
        first one, or the one last given to `step`. One region an object, in the order of `prompts`.

        Raises PromptError before any work.
        """

    def step(self, frame: Frame) -> list[Region]:
        """Every object on the next frame, in the order of their track ids."""

    def remove(self, track_id: int) -> None:
        """Follow an object no longer. An id that is not known is no error."""

    def signature(self, track_id: int) -> npt.NDArray[np.float32]:
        """A unit vector that says how the object looked on the frame last given: events end where it turns."""

    def cut(self, track_id: int) -> Clip:
        """What was seen of an object since the last cut. The next clip begins with the frame this one ends with."""


@runtime_checkable
class VideoModel(Protocol):
    """A `RegionModel` that follows objects too (`info.video`)."""

    def open_tracker(self) -> Tracker:
        """A tracker that follows nothing yet. Several may be open at once."""

    def describe_clips(
        self,
        clips: Sequence[Clip],
        languages: Sequence[str] = ("en",),
        previous: Sequence[Mapping[str, str]] = (),
        generation: Generation = Generation(),
    ) -> list[dict[str, str]]:
        """A caption of each clip by language code. `previous` holds the captions of the clips before, or nothing.

        May be called from another thread than the tracker's.
        """


@dataclass(frozen=True)
class FrameResult:
    """What was found on one frame."""

    index: int
    time: float
    regions: tuple[Region, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": VIDEO_SCHEMA,
            "kind": "frame",
            "index": self.index,
            "time": self.time,
            "regions": [region.to_json() for region in self.regions],
        }


@dataclass(frozen=True)
class TrackEvent:
    """What one object did between two frames, both included. `texts` are captions by language code."""

    track_id: int
    first: int
    last: int
    start: float
    end: float
    texts: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"schema": VIDEO_SCHEMA, "kind": "event", **vars(self), "texts": dict(self.texts)}


@dataclass(frozen=True)
class Fault:
    """Something that went wrong while the session went on: where, and a sentence."""

    index: int
    time: float
    what: str
    track_id: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {"schema": VIDEO_SCHEMA, "kind": "fault", **vars(self)}


SessionResult = FrameResult | TrackEvent | Fault
"""What a session gives, in the order in which it is known."""


class FrameSource(Protocol):
    """Where frames come from. Iterating gives frames in order, and faults for those that could not be had."""

    def __iter__(self) -> Iterator[Frame | Fault]: ...


@runtime_checkable
class ReversibleSource(FrameSource, Protocol):
    """A source whose frames can also be had backward, as those of a file can."""

    def reversed_from(self, index: int) -> Iterable[Frame | Fault]:
        """The frame with this index, then those before it down to frame 0, and faults for those that could not be
        had.
        """
