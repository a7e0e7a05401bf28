"""Runs over videos: objects are tracked, and their events captioned.

    frames.tracks        a Detection for each object on each frame that it is on: its mask, its track id as `index`,
                         one `instance` a track, its label, and the caption of the event it is in
    tracks_events        a TemporalDetection for each event: its frames, the object's label and track id, the caption
    tracks_run           the id of the run that finished the video: a hash of the model, the languages and the prompts
    tracks_error         why the video failed; beside a finished run, the faults on the way
    tracks_seconds       how long it took

A video is finished when its run is set, which is written last. A video without it that has labels in the field was
interrupted: its labels are removed, and it starts over.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import fiftyone as fo

from fiftyone_plugin.checks import FiftyOneError, check_label_field, check_prompt_field
from fiftyone_plugin.convert import Geometry, attribute, labels_in, model_name, text_attributes
from fiftyone_plugin.mongo import SampleCollection, VideoFrames
from fiftyone_plugin.objects import PromptedObject, PromptedObjects, PromptingSource, objects_of_labels
from fiftyone_plugin.run import DatasetRun, RunProgress, RunRequest, Samples
from pam_core.contracts import RegionModel
from pam_core.errors import PictureError, PromptError, UnsupportedError, VideoError
from pam_core.media.pyav import load_av
from pam_core.media.video_file import VideoFile
from pam_core.sessions.session import StreamSession
from pam_core.types import ModelRef
from pam_core.video import FrameResult, SessionResult, TrackEvent
from pam_plugins import plugins

FAILURES = (VideoError, PromptError, PictureError, UnsupportedError)
"""Errors that end one video; the run continues."""
WAITING = 8
"""Clips that wait for their captions; with more, the frames wait too."""
WRITE_SECONDS = 2.0
WRITE_FRAMES = 64
"""Frames are written together after this time or number, so that memory does not grow with the video."""
EVENT_TASK = "brief"


@dataclass(frozen=True)
class VideoRequest(RunRequest):
    """Tracks for the videos of a view: `prompt_field` is one of the frames; without it, at most `max_objects` regions
    of each first frame are tracked.
    """

    field: str = "tracks"
    max_objects: int = 8
    languages: tuple[str, ...] = ("en",)


@dataclass
class VideoProgress(RunProgress):
    """How far a run over videos is: frames of all videos, and of the current one (`at` of `length`, 0 if unknown)."""

    frames: int = 0
    tracks: int = 0
    events: int = 0
    faults: int = 0
    at: int = 0
    length: int = 0

    @property
    def share(self) -> float:
        within = min(self.at / self.length, 1.0) if self.length else 0.0
        return (self.done + within) / self.total if self.total else 1.0

    def counts(self) -> list[str]:
        where = f"{self.total} videos, {self.frames} frames"
        if self.done < self.total:
            of_length = f" of {self.length}" if self.length else ""
            where = f"video {self.done + 1} of {self.total}, frame {self.at}{of_length}"
        return [where, f"{self.tracks} tracks", f"{self.events} events"]

    def seconds_left(self) -> float:
        """The estimated rest of the current video; 0 where not known."""
        return self.seconds / self.frames * max(self.length - self.at, 0) if self.frames else 0.0


class TrackWriter:
    """Writes the results of a session to `field` of the frames, and collects its events and faults.

    Captions come after the frames of their event: they are set on labels that are written already.
    """

    def __init__(
        self, frames: VideoFrames, field: str, geometry: Geometry, model: ModelRef, objects: PromptedObjects
    ) -> None:
        self._store, self._field, self._geometry = frames, field, geometry
        self._model, self._objects = model_name(model), objects
        self._waiting: dict[int, fo.Label] = {}
        self._written = time.monotonic()
        self.events: list[fo.TemporalDetection] = []
        self.faults = self.frames = self.labels = 0
        self.first_fault: str | None = None

    def add(self, result: SessionResult) -> None:
        """Take a result; frames are written with others."""
        if isinstance(result, FrameResult):
            self._add_frame(result)
        elif isinstance(result, TrackEvent):
            self._add_event(result)
        else:
            self.add_fault(result.what)
        if len(self._waiting) >= WRITE_FRAMES or time.monotonic() - self._written >= WRITE_SECONDS:
            self.flush()

    def add_fault(self, what: str) -> None:
        """Count a fault; only the first is kept."""
        self.faults += 1
        self.first_fault = self.first_fault or what

    def _add_frame(self, result: FrameResult) -> None:
        self.frames += 1
        number = result.index + 1
        regions = [
            region.with_texts(self._objects[region.track_id].texts)
            for region in result.regions
            if region.track_id is not None
        ]
        value = self._geometry.labels(regions, f"{self._store.sample_id}_{number}")
        for label in labels_in(value):
            label.instance = self._objects[label.index].instance
            self.labels += 1
            self._waiting[number] = value

    def _add_event(self, event: TrackEvent) -> None:
        first, last = event.first + 1, event.last + 1
        captions = {attribute(EVENT_TASK, code): text for code, text in event.texts.items()}
        names = self._objects[event.track_id].texts.get("label", {})
        self.events.append(
            fo.TemporalDetection(
                label=names.get("en") or next(iter(names.values()), None),
                support=[first, last],
                index=event.track_id,
                model=self._model,
                **captions,
                **text_attributes({"label": names}),
            )
        )
        if captions:
            self.flush()
            self._store.describe(self._field, event.track_id, first, last, captions)

    def flush(self) -> None:
        """Write the frames that wait."""
        labels, self._waiting = self._waiting, {}
        self._store.write(self._field, labels)
        self._written = time.monotonic()

    def fault_text(self) -> str | None:
        """The faults in a sentence; None where there were none."""
        count = self.faults
        return f"{count} {'fault' if count == 1 else 'faults'}; the first: {self.first_fault}" if count else None


class VideoRun(DatasetRun[VideoRequest, VideoProgress]):
    """A checked request for the videos of a view."""

    media = "video"
    noun = "videos"
    existing: ClassVar = {
        "skip": "Leave finished videos as they are",
        "overwrite": "Put new tracks in place of those of other runs",
    }
    progress = VideoProgress
    timed = "frames"

    def __init__(self, view: SampleCollection, request: VideoRequest) -> None:
        load_av()  # a missing package is no fault of a video
        info = plugins.resolve_video_model(request.model, request.languages)
        super().__init__(view, request, info, "pam_track")
        dataset, frame_field = self.dataset, f"frames.{request.field}"
        check_label_field(dataset, frame_field, fo.Detections)
        check_label_field(dataset, self.fields.events, fo.TemporalDetections)
        has_runs = dataset.get_field(self.fields.run) is not None
        if dataset.get_field(frame_field) is not None and not has_runs:
            raise FiftyOneError(
                f"The field {frame_field!r} holds labels that no run of tracking made, and tracks would replace them;"
                " wanted a new name, such as tracks. Nothing was changed."
            )
        if request.prompt_field is not None:
            check_prompt_field(dataset, f"frames.{request.prompt_field}")
        if request.max_objects < 1:
            raise FiftyOneError(f"Got max_objects={request.max_objects}; wanted at least 1.")
        if has_runs and request.existing == "skip":
            self.skipped = len(view.exists(self.fields.run))
            self.view = view.exists(self.fields.run, False)

    def declare(self) -> None:
        labels = {f"frames.{self.fields.result}": fo.Detections, self.fields.events: fo.TemporalDetections}
        self.fields.declare(self.dataset, labels)

    def work(self, samples: Samples, model: RegionModel, progress: VideoProgress) -> Iterator[VideoProgress]:
        paths, finished = samples.values("filepath"), samples.values(self.fields.run)
        try:
            for sample_id in samples.ids:
                if sample_id in paths:  # the sample may have been deleted meanwhile
                    run = finished.get(sample_id)
                    yield from self._video(samples, sample_id, paths[sample_id], run, model, progress)
                progress.done += 1
                progress.at = progress.length = 0
                yield progress
        finally:
            if progress.tracks:
                self.dataset.add_dynamic_frame_fields(fields=self.fields.result)
                self.dataset.add_dynamic_sample_fields(fields=self.fields.events)

    def _video(
        self, samples: Samples, video_id: str, path: str, run: str | None, model: RegionModel, progress: VideoProgress
    ) -> Iterator[VideoProgress]:
        """Track the objects of one video; an error that ends it is written to its sample."""
        request, fields = self.request, self.fields
        started, before = time.monotonic(), progress.seconds
        frames = VideoFrames(self.dataset, video_id)
        writer: TrackWriter | None = None
        try:
            video = VideoFile(path)
            field, label_ids = request.prompt_field, request.label_ids
            objects, errors = (
                objects_of_labels(frames, field, label_ids, video.size, self.info) if field else ([], [])
            )
            if field and not objects:
                if errors:
                    raise PromptError(errors[0])
                progress.skipped += 1
                return
            run_id = self._run_id(model, objects)
            if run == run_id:
                progress.resumed += 1
                return
            self.record.start(languages=list(request.languages))
            _set_fields(samples, video_id, dict.fromkeys((fields.run, fields.events, fields.seconds, fields.error)))
            frames.clear(request.field)
            progress.length = video.frames or 0
            with StreamSession(model, languages=request.languages, waiting=WAITING) as session:
                source = PromptingSource(video, session, model, request.languages, objects, request.max_objects)
                geometry = Geometry("mask", self.mask_folder)
                writer = TrackWriter(frames, request.field, geometry, model.info.ref, source.objects)
                for what in errors:
                    writer.add_fault(what)
                for result in session.run(source):
                    writer.add(result)
                    if isinstance(result, FrameResult):
                        progress.at = writer.frames
                        progress.frames += 1
                        progress.seconds = before + time.monotonic() - started
                        yield progress
            writer.flush()
            if not writer.labels:
                raise VideoError(writer.first_fault or "No object was on any frame.")
        except FAILURES as error:
            message = str(error) if str(error).startswith(path) else f"{path}: {error}"
            self.record.start(languages=list(request.languages))
            progress.failed += 1
            progress.last_error = message
            if writer is not None:
                frames.clear(request.field)
            _set_fields(samples, video_id, {fields.error: message})
            return
        progress.perceived += 1
        progress.tracks += len(source.objects)
        progress.events += len(writer.events)
        progress.faults += writer.faults
        progress.seconds = before + time.monotonic() - started
        results = {
            fields.events: fo.TemporalDetections(detections=writer.events),
            fields.seconds: time.monotonic() - started,
            fields.error: writer.fault_text(),
            fields.run: run_id,
        }
        _set_fields(samples, video_id, results)

    def _run_id(self, model: RegionModel, objects: Sequence[PromptedObject]) -> str:
        """A hash of the model, the languages and the objects: equal where the result would be equal."""
        parts = {
            "model": [model.info.name, model.info.revision],
            "languages": list(self.request.languages),
            "most": None if objects else self.request.max_objects,
            "objects": [each.to_json() for each in objects],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def made(self) -> str:
        return f"captions in {', '.join(self.request.languages)}"


def _set_fields(samples: Samples, sample_id: str, values: Mapping[str, Any]) -> None:
    """Set fields of a sample in one update."""

    def change(sample: fo.Sample) -> None:
        for name, value in values.items():
            sample[name] = value

    samples.write({sample_id: change}, tuple(values))
