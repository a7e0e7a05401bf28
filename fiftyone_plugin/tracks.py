"""Objects followed through the videos of a view, and what they do, without the App: check, carry out, leave a record.

    frames.tracks        a Detection for each object on each frame it is seen on: its mask, its track id as `index`,
                         one `instance` for all of them, its label, and the caption of the event it is in
    tracks_events        a TemporalDetection for each event: its frames, the object's label and track id, the caption
    tracks_run           which run finished the video: the model, the languages and the prompts, as a short id
    tracks_error         why nothing could be followed; beside a finished run, what went wrong on the way
    tracks_seconds       how long it took

A video is finished when its run is set, which is the last thing written. One without it that has labels in the field
was broken off: its labels are taken away, and it is begun anew.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo

from fiftyone_plugin.checks import EnrichError, check_media, check_prompt_field, check_track_fields, said_read_only
from fiftyone_plugin.dataset import Collected, Fields, Samples
from fiftyone_plugin.follow import Follower
from fiftyone_plugin.frames import VideoFrames
from fiftyone_plugin.labels import Geometry
from fiftyone_plugin.objects import Followed, Watched, objects_of_labels
from fiftyone_plugin.runs import Provenance
from fiftyone_plugin.work import duration, mask_folder
from pam_core.contracts import RegionModel
from pam_core.errors import PictureError, PromptError, UnsupportedError, VideoError
from pam_core.media.frame_sources import VideoFile
from pam_core.sessions.session import StreamSession
from pam_core.video import FrameResult, VideoModel
from pam_plugins import plugins

EXISTING = {
    "skip": "Leave videos that are finished as they are",
    "overwrite": "Put new tracks in place of those of other runs",
}
FAILURES = (VideoError, PromptError, PictureError, UnsupportedError)
"""What ends one video; the run goes on."""
WAITING = 8
"""Clips that wait for their captions; with more, the frames wait too."""


@dataclass(frozen=True)
class TrackFields(Fields):
    """The names of the fields of a video's tracks."""

    @property
    def events(self) -> str:
        return f"{self.result}_events"

    def declare_tracks(self, dataset: fo.Dataset) -> None:
        """Make the fields that are not there yet."""
        if dataset.get_field(f"frames.{self.result}") is None:
            dataset.add_frame_field(self.result, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
        if dataset.get_field(self.events) is None:
            kind = fo.TemporalDetections
            dataset.add_sample_field(self.events, fo.EmbeddedDocumentField, embedded_doc_type=kind)
        self.declare_notes(dataset)


@dataclass(frozen=True)
class TrackRequest:
    """What is asked of the videos of a view.

    `field` is where tracks go; labels of the frames' `prompt_field` are the objects, of `label_ids` only these.
    Without it, at most `most` of what is found in each first frame are.
    """

    field: str = "tracks"
    prompt_field: str | None = None
    label_ids: tuple[str, ...] | None = None
    most: int = 8
    model: str = "auto"
    device: str = "auto"
    languages: tuple[str, ...] = ("en",)
    existing: str = "skip"


@dataclass
class TrackProgress:
    """How far a run is: videos dealt with, of these followed, failed and finished by an earlier run; frames of all
    videos, and of the one at hand (`at` of `length`, which is 0 where not known).
    """

    total: int
    done: int = 0
    perceived: int = 0
    failed: int = 0
    resumed: int = 0
    skipped: int = 0
    frames: int = 0
    tracks: int = 0
    events: int = 0
    faults: int = 0
    seconds: float = 0.0
    at: int = 0
    length: int = 0
    last_error: str | None = None

    @property
    def share(self) -> float:
        """Of the work that is done."""
        within = min(self.at / self.length, 1.0) if self.length else 0.0
        return (self.done + within) / self.total if self.total else 1.0

    def text(self) -> str:
        """One line for a progress bar or a log."""
        if self.done < self.total:
            of = f" of {self.length}" if self.length else ""
            parts = [f"video {self.done + 1} of {self.total}, frame {self.at}{of}"]
        else:
            parts = [f"{self.total} videos, {self.frames} frames"]
        parts += [f"{self.tracks} objects", f"{self.events} events"]
        parts += [f"{self.resumed} taken over"] if self.resumed else []
        parts += [f"{self.skipped} left as they were"] if self.skipped else []
        parts += [f"{self.failed} failed"] if self.failed else []
        if self.frames and self.length and self.done < self.total:
            left = self.seconds / self.frames * max(self.length - self.at, 0)
            parts.append(f"about {duration(left)} left of this video")
        return ", ".join(parts)


class TrackWork:
    """A checked request. Making it changes nothing in the dataset; `steps` does."""

    def __init__(self, view: Collected, request: TrackRequest) -> None:
        self.request = request
        self.dataset: fo.Dataset = view._dataset
        self.fields = TrackFields(request.field)
        self.info = plugins.resolve_video_model(request.model, request.languages)
        check_media(view, "video")
        check_track_fields(self.dataset, self.fields)
        if request.prompt_field is not None:
            check_prompt_field(self.dataset, f"frames.{request.prompt_field}")
        if request.existing not in EXISTING:
            raise EnrichError(f"Got existing={request.existing!r}; wanted one of {', '.join(EXISTING)}.")
        if request.most < 1:
            raise EnrichError(f"Got at most {request.most} objects; wanted at least 1.")
        self.samples = Samples(view)
        self.finished = self._finished()
        self.skipped = 0
        if request.existing == "skip":
            kept = [sample_id for sample_id in self.samples.ids if sample_id not in self.finished]
            self.skipped = len(self.samples) - len(kept)
            self.samples.ids = kept
        self.run = Provenance(self.dataset, f"pam_{request.field}", "pam_track", self.info)

    def _finished(self) -> dict[str, str]:
        """The ids of finished videos, each with the run that finished it."""
        return self.samples.having(self.fields.run)

    @property
    def total(self) -> int:
        """How many videos there are to follow objects in."""
        return len(self.samples)

    def estimate(self) -> str:
        """What the work will take, in words; measured in earlier runs of this dataset, if there were any."""
        parts = [f"{self.total} videos", f"{self.info.name}: {self.info.description}"]
        parts.append(f"captions in {', '.join(self.request.languages)}")
        each = next((run.seconds / run.frames for run in self.run.earlier() if run.frames), None)
        if each is None:
            parts.append("time: not known before the first run; it is shown from the first frames on")
        else:
            parts.append(f"time: {each:.2f} s a frame in the last run")
        return "; ".join(parts) + ". It runs on this machine and costs nothing but time."

    def steps(self, model: RegionModel | None = None) -> Iterator[TrackProgress]:
        """Do the work, frame by frame; one step before the first.

        What is finished is in the dataset; the same request goes on from there.
        """
        following = model or plugins.load_model(self.info.name, self.request.device)
        if not isinstance(following, VideoModel):
            raise UnsupportedError(f"{self.info.name} says that it follows objects and does not; choose another.")
        with said_read_only(self.dataset):
            self.fields.declare_tracks(self.dataset)
        progress = TrackProgress(total=self.total, skipped=self.skipped)
        yield progress
        try:
            for sample_id, path in zip(self.samples.ids, self.samples.values("filepath"), strict=True):
                progress.at = progress.length = 0
                if path is not None:  # the sample may have been deleted meanwhile
                    yield from self._video(sample_id, Path(path), following, progress)
                progress.done += 1
                progress.at = progress.length = 0
                yield progress
        finally:
            if progress.tracks:
                self.dataset.add_dynamic_frame_fields(fields=self.fields.result)
                self.dataset.add_dynamic_sample_fields(fields=self.fields.events)
            self.run.record(progress)

    def _video(
        self, sample_id: str, path: Path, model: RegionModel, progress: TrackProgress
    ) -> Iterator[TrackProgress]:
        """Follow the objects of one video; what fails is noted."""
        started, before = time.monotonic(), progress.seconds
        frames = VideoFrames(self.dataset, sample_id)
        begun = False
        try:
            source = VideoFile(path)
            objects, wrong = self._objects(frames, source.size)
            if self.request.prompt_field is not None and not objects:
                if wrong:
                    raise PromptError(wrong[0])
                progress.skipped += 1
                return
            run_id = self._run_id(model, objects)
            if self.finished.get(sample_id) == run_id:
                progress.resumed += 1
                return
            self._register()
            self._begin(sample_id, frames)
            begun = True
            progress.length = source.frames or 0
            with self._session(model) as session:
                watched = Watched(source, session, model, self.request.languages, objects, self.request.most)
                follower = Follower(
                    frames, self.request.field, self._geometry(), sample_id, model.info.ref, watched.objects
                )
                for what in wrong:
                    follower.fault(what)
                for seen in session.run(watched):
                    follower.see(seen)
                    if isinstance(seen, FrameResult):
                        progress.at = follower.frames
                        progress.frames += 1
                        progress.seconds = before + time.monotonic() - started
                        yield progress
            follower.write()
            if not follower.labels:
                raise VideoError(follower.first_fault or "None of the objects was found on any frame.")
        except FAILURES as error:
            said = str(error) if str(error).startswith(str(path)) else f"{path}: {error}"
            self._register()
            progress.failed += 1
            progress.last_error = said
            if begun:
                frames.clear(self.request.field)
            self._note(sample_id, {self.fields.error: said})
            return
        progress.perceived += 1
        progress.tracks += len(watched.objects)
        progress.events += len(follower.events)
        progress.faults += follower.faults
        progress.seconds = before + time.monotonic() - started
        results = {
            self.fields.events: fo.TemporalDetections(detections=follower.events),
            self.fields.seconds: time.monotonic() - started,
            self.fields.error: follower.said(),
            self.fields.run: run_id,
        }
        self._note(sample_id, results)

    def _register(self) -> None:
        self.run.register(self.request, languages=list(self.request.languages))

    def _objects(self, frames: VideoFrames, size: tuple[int, int]) -> tuple[list[Followed], list[str]]:
        if self.request.prompt_field is None:
            return [], []
        return objects_of_labels(frames, self.request.prompt_field, self.request.label_ids, size, self.info)

    def _session(self, model: RegionModel) -> StreamSession:
        assert isinstance(model, VideoModel)
        return StreamSession(model, languages=self.request.languages, waiting=WAITING)

    def _geometry(self) -> Geometry:
        """Masks in the database; where those of one frame are too large for it, in files."""
        return Geometry("mask", mask_folder(self.dataset, self.request.field))

    def _run_id(self, model: RegionModel, objects: Sequence[Followed]) -> str:
        """Names the model, the languages and the objects: equal where the result would be equal."""
        said = {
            "model": [model.info.name, model.info.revision],
            "languages": list(self.request.languages),
            "most": None if objects else self.request.most,
            "objects": [each.to_json() for each in objects],
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    def _begin(self, sample_id: str, frames: VideoFrames) -> None:
        """From here on the video is not finished, and has no labels of an earlier try."""
        fields = self.fields
        self._note(sample_id, dict.fromkeys((fields.run, fields.events, fields.seconds, fields.error)))
        frames.clear(self.request.field)

    def _note(self, sample_id: str, values: Mapping[str, Any]) -> None:
        """Set fields of a video's sample in one update."""

        def change(sample: fo.Sample) -> None:
            for name, value in values.items():
                sample[name] = value

        self.samples.write({sample_id: change}, tuple(values))
