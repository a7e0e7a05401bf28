"""Objects followed with one tracker in one direction: what is seen of them on each frame, and where events end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pam_core.contracts import Tracker
from pam_core.errors import PromptError, VideoError
from pam_core.questions import Clip
from pam_core.sessions.caption_worker import CaptionWorker
from pam_core.sessions.events import EventDetector, EventRule, is_there
from pam_core.sessions.prompt_queue import PromptRequest
from pam_core.types import Prompt, Region
from pam_core.video import Fault, Frame, SessionResult, TrackEvent, VideoModel

FAILURES = 5
"""An object that cannot be followed on so many frames in a row is given up."""

NO_LOOK = np.zeros(0, np.float32)

Stamp = tuple[int, float]
"""A frame's index and its time."""


@dataclass
class _Object:
    """`since` and `last` are the first and the latest frame of the event it is in, `frames` how many came since the
    last boundary, and `seen` on how many of these it was there; `found` whether it ever was, and `told` whether a
    fault said that it was not; `events` those that are over.
    """

    detector: EventDetector
    since: Stamp
    last: Stamp
    frames: int = 0
    seen: int = 0
    found: bool = False
    told: bool = False
    events: int = 0
    failures: int = 0


@dataclass
class ObjectTracks:
    """Everything a session knows of the objects of one pass. Events go to `captions`, or come straight where it is
    None. No tracker is open while nothing is followed.
    """

    model: VideoModel
    rule: EventRule
    captions: CaptionWorker | None
    step: int
    _objects: dict[int, _Object] = field(default_factory=dict, init=False)
    _tracker: Tracker | None = field(default=None, init=False)

    def remove(self, track_id: int) -> list[SessionResult]:
        """End an object's last event with the last frame it was looked for on. An unknown id is no error."""
        followed = self._objects.get(track_id)
        if followed is None or self._tracker is None:
            return []
        out = self._end_event(track_id, followed, self._tracker)
        del self._objects[track_id]
        if self.captions is not None:
            self.captions.forget(track_id)
        try:
            self._tracker.remove(track_id)
        except Exception as error:
            out.append(_fault(followed.last, f"could not be removed from the tracker ({_why(error)})", track_id))
        if not self._objects:
            self._tracker = None
        return out

    def end(self) -> list[SessionResult]:
        """Remove every object."""
        return [seen for track_id in sorted(self._objects) for seen in self.remove(track_id)]

    def find(self, frame: Frame, prompts: Sequence[PromptRequest]) -> tuple[list[Region], list[SessionResult]]:
        """Every object on the next frame, by track id, and what went wrong."""
        regions: dict[int, Region] = {}
        out = self._step(frame, regions)
        together: dict[int, Prompt] = {}
        height, width = frame.picture.shape[:2]
        for asked in prompts:
            try:
                asked.prompt.check(width, height)
            except PromptError as error:
                out.append(_fault((frame.index, frame.time), f"was not begun or corrected: {error}", asked.track_id))
                continue
            if asked.track_id in together:  # asked twice: the second corrects the first
                out += self._add(frame, together, regions)
                together = {}
            together[asked.track_id] = asked.prompt
        out += self._add(frame, together, regions)
        return [regions[track_id] for track_id in sorted(regions)], out

    def end_events(self, frame: Frame, regions: Sequence[Region]) -> list[SessionResult]:
        """Look at what was found on a frame, and end the events that end with it."""
        out: list[SessionResult] = []
        stamp = (frame.index, frame.time)
        for region in regions:
            track_id = region.track_id
            if track_id is None or track_id not in self._objects or self._tracker is None:
                continue
            followed = self._objects[track_id]
            followed.last = stamp
            followed.frames += 1
            followed.seen += is_there(region)
            followed.found |= followed.seen > 0
            try:
                look = NO_LOOK if self.rule.fixed else self._tracker.signature(track_id)
            except Exception as error:
                out.append(_fault(stamp, f"could not be looked at on this frame ({_why(error)})", track_id))
                out += self._failed(stamp, track_id)
                continue
            followed.failures = 0
            if followed.detector.feed(region, look, frame.time):
                out += self._end_event(track_id, followed, self._tracker)
        return out

    def _step(self, frame: Frame, regions: dict[int, Region]) -> list[SessionResult]:
        if self._tracker is None:
            return []
        try:
            found = self._tracker.step(frame)
        except Exception as error:  # a codec, a GPU, a plugin: the next frame may be good again
            stamp = (frame.index, frame.time)
            one = error.track_id if isinstance(error, VideoError) and error.track_id in self._objects else None
            if one is None:
                what = f"Nothing could be followed on this frame ({_why(error)})."
                out: list[SessionResult] = [Fault(*stamp, what)]
            else:
                out = [_fault(stamp, f"could not be followed on this frame ({_why(error)})", one)]
            for track_id in list(self._objects) if one is None else [one]:
                out += self._failed(stamp, track_id)
            return out
        for region in found:
            if region.track_id is not None and region.track_id in self._objects:
                regions[region.track_id] = region
        return []

    def _failed(self, stamp: Stamp, track_id: int) -> list[SessionResult]:
        """One more frame on which an object was not followed; of too many it is given up."""
        self._objects[track_id].failures += 1
        if self._objects[track_id].failures < FAILURES:
            return []
        what = f"is given up, as it could not be followed on {FAILURES} frames in a row. Prompt it again to go on"
        return [_fault(stamp, what, track_id), *self.remove(track_id)]

    def _add(self, frame: Frame, prompts: Mapping[int, Prompt], regions: dict[int, Region]) -> list[SessionResult]:
        """Begin or correct objects together, or, where that fails, each alone."""
        if not prompts:
            return []
        stamp = (frame.index, frame.time)
        try:
            tracker = self._tracker or self.model.open_tracker()
            found = tracker.add(frame, prompts)
        except Exception as error:
            if len(prompts) == 1:
                return [_fault(stamp, f"was not begun or corrected: {_why(error)}", track_id) for track_id in prompts]
            alone = [self._add(frame, {track_id: prompt}, regions) for track_id, prompt in prompts.items()]
            return [seen for out in alone for seen in out]
        self._tracker = tracker
        for track_id, region in zip(prompts, found, strict=True):
            regions[track_id] = region
            self._objects.setdefault(track_id, _Object(EventDetector(self.rule), stamp, stamp))
        return []

    def _end_event(self, track_id: int, followed: _Object, tracker: Tracker) -> list[SessionResult]:
        """Cut the clip and ask for its caption. The frame is also the first of the next event."""
        out: list[SessionResult] = []
        (first, start), (last, end) = sorted((followed.since, followed.last))
        if not followed.found and not followed.told:
            followed.told = True
            what = f"was not found from frame {first} to {last}. Is its prompt on the object, on this very frame?"
            out.append(_fault(followed.last, what, track_id))
        if first == last and followed.events:
            return out  # the frame belongs to the event before already
        try:
            clip: Clip | None = tracker.cut(track_id)
        except Exception as error:
            clip = None
            out.append(
                _fault(followed.last, f"has no caption for frames {first} to {last} ({_why(error)})", track_id)
            )
        event = TrackEvent(track_id, first, last, start, end)
        if self.captions is None:
            out.append(event)
        else:
            # An absence ends some frames after the object is back: these few are not worth a caption.
            seen = followed.seen > self.rule.settle or 2 * followed.seen >= followed.frames
            self.captions.put(event, clip if seen else None)
            if self.step < 0:
                self.captions.forget(track_id)  # what came later is no history
        followed.since, followed.frames, followed.seen = followed.last, 0, 0
        followed.events += 1
        return out


def _fault(stamp: Stamp, what: str, track_id: int) -> Fault:
    end = "" if what.endswith((".", "?")) else "."
    return Fault(*stamp, f"Object {track_id} {what}{end}", track_id)


def _why(error: Exception) -> str:
    """Errors that are sentences as they are; of others their type too."""
    return str(error) if isinstance(error, (VideoError, PromptError)) else repr(error)
