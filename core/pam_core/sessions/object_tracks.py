"""Objects tracked in one direction: their regions on each frame, and where their events end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pam_core.contracts import RegionModel, Tracker
from pam_core.errors import PromptError, VideoError
from pam_core.questions import Clip
from pam_core.sessions.caption_worker import CaptionWorker
from pam_core.sessions.events import EventDetector, EventRule, is_visible
from pam_core.sessions.prompt_queue import PromptRequest
from pam_core.types import Prompt, Region
from pam_core.video import Fault, Frame, SessionResult, TrackEvent

FAILURES = 5
"""An object that cannot be tracked on so many frames in a row is given up."""

NO_SIGNATURE = np.zeros(0, np.float32)

Stamp = tuple[int, float]
"""A frame's index and its time."""


@dataclass
class _Track:
    """One tracked object.

    `first` and `last` are the first and the latest frame of its current event, `frames` how many came since the last
    boundary, and `present` on how many of these it was visible. `ever_present`: it was visible on some frame;
    `reported`: a fault reported that it was not. `events` counts those that are over, `failures` frames in a row on
    which tracking failed.
    """

    detector: EventDetector
    first: Stamp
    last: Stamp
    frames: int = 0
    present: int = 0
    ever_present: bool = False
    reported: bool = False
    events: int = 0
    failures: int = 0


@dataclass
class ObjectTracks:
    """The objects of one pass over the frames.

    Events go to the caption worker, or straight to the caller where there is none. No tracker is open while nothing
    is tracked.
    """

    model: RegionModel
    rule: EventRule
    captions: CaptionWorker | None
    step: int
    _objects: dict[int, _Track] = field(default_factory=dict, init=False)
    _tracker: Tracker | None = field(default=None, init=False)

    def remove(self, track_id: int) -> list[SessionResult]:
        """End an object's last event with its last frame, and stop tracking it. An unknown id is no error."""
        track = self._objects.get(track_id)
        if track is None or self._tracker is None:
            return []
        out = self._end_event(track_id, track, self._tracker)
        del self._objects[track_id]
        if self.captions is not None:
            self.captions.forget(track_id)
        try:
            self._tracker.remove(track_id)
        except Exception as error:
            out.append(_fault(track.last, f"could not be removed from the tracker ({_why(error)})", track_id))
        if not self._objects:
            self._tracker = None
        return out

    def end(self) -> list[SessionResult]:
        """Remove every object."""
        return [result for track_id in sorted(self._objects) for result in self.remove(track_id)]

    def track(self, frame: Frame, prompts: Sequence[PromptRequest]) -> tuple[list[Region], list[SessionResult]]:
        """The region of every object on the next frame, by track id, and the results of what failed."""
        regions: dict[int, Region] = {}
        out = self._step(frame, regions)
        together: dict[int, Prompt] = {}
        height, width = frame.picture.shape[:2]
        for request in prompts:
            try:
                request.prompt.check(width, height)
            except PromptError as error:
                out.append(
                    _fault((frame.index, frame.time), f"was not begun or corrected: {error}", request.track_id)
                )
                continue
            if request.track_id in together:  # two prompts: the second corrects the first
                out += self._add(frame, together, regions)
                together = {}
            together[request.track_id] = request.prompt
        out += self._add(frame, together, regions)
        return [regions[track_id] for track_id in sorted(regions)], out

    def end_events(self, frame: Frame, regions: Sequence[Region]) -> list[SessionResult]:
        """Feed a frame's regions to the event rule, and end the events that end with it."""
        out: list[SessionResult] = []
        stamp = (frame.index, frame.time)
        for region in regions:
            track_id = region.track_id
            if track_id is None or track_id not in self._objects or self._tracker is None:
                continue
            track = self._objects[track_id]
            track.last = stamp
            track.frames += 1
            track.present += is_visible(region)
            track.ever_present |= track.present > 0
            try:
                signature = NO_SIGNATURE if self.rule.fixed else self._tracker.signature(track_id)
            except Exception as error:
                out.append(_fault(stamp, f"has no signature on this frame ({_why(error)})", track_id))
                out += self._failed(stamp, track_id)
                continue
            track.failures = 0
            if track.detector.feed(region, signature, frame.time):
                out += self._end_event(track_id, track, self._tracker)
        return out

    def _step(self, frame: Frame, regions: dict[int, Region]) -> list[SessionResult]:
        if self._tracker is None:
            return []
        try:
            tracked = self._tracker.step(frame)
        except Exception as error:  # a codec, a GPU, a plugin: the next frame may be good again
            stamp = (frame.index, frame.time)
            one = error.track_id if isinstance(error, VideoError) and error.track_id in self._objects else None
            if one is None:
                what = f"Nothing could be tracked on this frame ({_why(error)})."
                out: list[SessionResult] = [Fault(*stamp, what)]
            else:
                out = [_fault(stamp, f"could not be tracked on this frame ({_why(error)})", one)]
            for track_id in list(self._objects) if one is None else [one]:
                out += self._failed(stamp, track_id)
            return out
        for region in tracked:
            if region.track_id is not None and region.track_id in self._objects:
                regions[region.track_id] = region
        return []

    def _failed(self, stamp: Stamp, track_id: int) -> list[SessionResult]:
        """Count a frame on which an object was not tracked; after too many it is given up."""
        self._objects[track_id].failures += 1
        if self._objects[track_id].failures < FAILURES:
            return []
        what = f"is given up, as it could not be tracked on {FAILURES} frames in a row. Prompt it again to go on"
        return [_fault(stamp, what, track_id), *self.remove(track_id)]

    def _add(self, frame: Frame, prompts: Mapping[int, Prompt], regions: dict[int, Region]) -> list[SessionResult]:
        """Add or correct objects together, or, where that fails, each alone."""
        if not prompts:
            return []
        stamp = (frame.index, frame.time)
        try:
            tracker = self._tracker or self.model.open_tracker()
            added = tracker.add(frame, prompts)
        except Exception as error:
            if len(prompts) == 1:
                return [_fault(stamp, f"was not begun or corrected: {_why(error)}", track_id) for track_id in prompts]
            alone = [self._add(frame, {track_id: prompt}, regions) for track_id, prompt in prompts.items()]
            return [result for results in alone for result in results]
        self._tracker = tracker
        for track_id, region in zip(prompts, added, strict=True):
            regions[track_id] = region
            self._objects.setdefault(track_id, _Track(EventDetector(self.rule), stamp, stamp))
        return []

    def _end_event(self, track_id: int, track: _Track, tracker: Tracker) -> list[SessionResult]:
        """Cut the clip and request its caption. The frame is also the first of the next event."""
        out: list[SessionResult] = []
        (first, start), (last, end) = sorted((track.first, track.last))
        if not track.ever_present and not track.reported:
            track.reported = True
            what = f"was not visible from frame {first} to {last}. Is its prompt on the object, on this very frame?"
            out.append(_fault(track.last, what, track_id))
        if first == last and track.events:
            return out  # the frame belongs to the event before already
        try:
            clip: Clip | None = tracker.cut(track_id)
        except Exception as error:
            clip = None
            out.append(_fault(track.last, f"has no caption for frames {first} to {last} ({_why(error)})", track_id))
        event = TrackEvent(track_id, first, last, start, end)
        if self.captions is None:
            out.append(event)
        else:
            # An absence ends some frames after the object is back: these few are not worth a caption.
            visible = track.present > self.rule.settle or 2 * track.present >= track.frames
            self.captions.put(event, clip if visible else None)
            if self.step < 0:
                self.captions.forget(track_id)  # what happened later is no history
        track.first, track.frames, track.present = track.last, 0, 0
        track.events += 1
        return out


def _fault(stamp: Stamp, what: str, track_id: int) -> Fault:
    end = "" if what.endswith((".", "?")) else "."
    return Fault(*stamp, f"Object {track_id} {what}{end}", track_id)


def _why(error: Exception) -> str:
    """The message of an error that is a sentence; of others the type too."""
    return str(error) if isinstance(error, (VideoError, PromptError)) else repr(error)
