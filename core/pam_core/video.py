"""Frames of a video, and what a session reports about them. Plain frozen values; no torch, no codec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pam_core.types import Picture, Region

VIDEO_SCHEMA = "pam.video/1"


@dataclass(frozen=True)
class Frame:
    """One picture of a video: its index from 0, and its time in seconds from the start."""

    index: int
    time: float
    picture: Picture


@dataclass(frozen=True)
class FrameResult:
    """The tracked regions of one frame."""

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
    """Something that failed while the session went on: the frame's index and time, and a sentence."""

    index: int
    time: float
    what: str
    track_id: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {"schema": VIDEO_SCHEMA, "kind": "fault", **vars(self)}


SessionResult = FrameResult | TrackEvent | Fault
"""What a session yields, in the order in which it is known."""
