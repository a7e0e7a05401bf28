"""What a session sees of one video, written to the dataset as it comes.

The labels of frames wait at most WRITE_SECONDS or WRITE_FRAMES to be written together, so that memory does not grow
with the length of the video. A caption is known when its event is over: it is then set on labels that are there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import fiftyone as fo

from fiftyone_plugin.frames import VideoFrames
from fiftyone_plugin.labels import Geometry, attribute
from fiftyone_plugin.objects import Followed
from pam_core.types import ModelRef
from pam_core.video import FrameResult, SessionResult, TrackEvent

WRITE_SECONDS = 2.0
WRITE_FRAMES = 64
EVENT_TASK = "brief"


class Follower:
    """Writes to `field` of the frames, and gathers events. `objects` are those known so far, by track id."""

    def __init__(
        self,
        frames: VideoFrames,
        field: str,
        geometry: Geometry,
        sample_id: str,
        model: ModelRef,
        objects: Mapping[int, Followed],
    ) -> None:
        self._store, self._field, self._geometry = frames, field, geometry
        self._sample_id, self._model = sample_id, f"{model.name} {model.revision}"
        self._objects = objects
        self._waiting: dict[int, fo.Label] = {}
        self._written = time.monotonic()
        self.events: list[fo.TemporalDetection] = []
        self.faults = 0
        self.first_fault: str | None = None
        self.frames = 0
        self.labels = 0

    def see(self, seen: SessionResult) -> None:
        if isinstance(seen, FrameResult):
            self._see_frame(seen)
        elif isinstance(seen, TrackEvent):
            self._see_event(seen)
        else:
            self.fault(seen.what)
        if len(self._waiting) >= WRITE_FRAMES or time.monotonic() - self._written >= WRITE_SECONDS:
            self.write()

    def fault(self, what: str) -> None:
        self.faults += 1
        self.first_fault = self.first_fault or what

    def _see_frame(self, seen: FrameResult) -> None:
        self.frames += 1
        regions = [
            region.with_texts(self._objects[region.track_id].texts)
            for region in seen.regions
            if region.track_id is not None
        ]
        number = seen.index + 1
        found = self._geometry.labels(regions, f"{self._sample_id}_{number}")
        labels = found[found._LABEL_LIST_FIELD]
        for label in labels:
            label.instance = self._objects[label.index].instance
        if labels:
            self.labels += len(labels)
            self._waiting[number] = found

    def _see_event(self, seen: TrackEvent) -> None:
        first, last = seen.first + 1, seen.last + 1
        captions = {attribute(EVENT_TASK, code): text for code, text in seen.texts.items()}
        label = self._objects[seen.track_id].texts.get("label", {})
        self.events.append(
            fo.TemporalDetection(
                label=label.get("en") or next(iter(label.values()), None),
                support=[first, last],
                index=seen.track_id,
                model=self._model,
                **captions,
                **{attribute("label", code): text for code, text in label.items() if code != "en"},
            )
        )
        if captions:
            self.write()
            self._store.describe(self._field, seen.track_id, first, last, captions)

    def write(self) -> None:
        """Write the frames that wait."""
        labels, self._waiting = self._waiting, {}
        self._store.write(self._field, labels)
        self._written = time.monotonic()

    def said(self) -> str | None:
        """What went wrong on the way, in a sentence or two; None where nothing did."""
        if not self.faults:
            return None
        return f"{self.faults} {'fault' if self.faults == 1 else 'faults'}; the first: {self.first_fault}"
