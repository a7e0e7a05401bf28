"""What the operators do, without the App: check a request, carry it out step by step, leave a record of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fiftyone as fo

from fiftyone_plugin.checks import (
    EnrichError,
    check_media,
    check_prompt_field,
    check_result_field,
    field_type,
    said_read_only,
)
from fiftyone_plugin.dataset import Collected, Fields, RegionSink, Samples, SampleSource, TextSink
from fiftyone_plugin.labels import Geometry, Label
from fiftyone_plugin.runs import Provenance
from pam_core.contracts import RegionModel
from pam_plugins import plugins
from pam_plugins.datasets.contracts import Sink
from pam_plugins.datasets.local import enrich
from pam_plugins.options import Options

GEOMETRIES = {
    "mask": "in the database",
    "mask_path": "as PNG files",
    "polyline": "as outlines",
}
EXISTING = {
    "skip": "Leave samples that have results as they are",
    "overwrite": "Put new results in their place",
    "append": "Add to what is there",
}


@dataclass(frozen=True)
class Request:
    """What is asked of a view.

    `field` is where regions go; `prompt_field` has labels to look at, `label_ids` limits them; without either,
    everything is looked for. Where `caption` is set, the labels of `field` themselves get texts and nothing else of
    them changes (their label neither, unless `relabel`).
    """

    field: str = "regions"
    prompt_field: str | None = None
    label_ids: tuple[str, ...] | None = None
    caption: bool = False
    relabel: bool = False
    model: str = "auto"
    device: str = "auto"
    options: Options = Options()
    geometry: str = "mask"
    mask_folder: str | None = None
    existing: str = "skip"


@dataclass
class Progress:
    """How far a run is: samples dealt with, of these perceived, failed and finished by an earlier run."""

    total: int
    done: int = 0
    perceived: int = 0
    failed: int = 0
    resumed: int = 0
    skipped: int = 0
    regions: int = 0
    seconds: float = 0.0
    last_error: str | None = None

    @property
    def share(self) -> float:
        """How much is done, from 0 to 1."""
        return self.done / self.total if self.total else 1.0

    def text(self) -> str:
        """One line for a progress bar or a log."""
        parts = [f"{self.done} of {self.total} samples", f"{self.regions} regions"]
        parts += [f"{self.resumed} taken over"] if self.resumed else []
        parts += [f"{self.skipped} left as they were"] if self.skipped else []
        parts += [f"{self.failed} failed"] if self.failed else []
        if self.perceived and self.done < self.total:
            left = self.seconds / self.perceived * (self.total - self.done)
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)


class Work:
    """A checked request. Making it changes nothing in the dataset; `steps` does."""

    def __init__(self, view: Collected, request: Request) -> None:
        self.view, self.request = view, request
        self.dataset: fo.Dataset = view._dataset
        self.fields = Fields(request.field, captions=request.caption)
        self.info = plugins.resolve_model(request.model)
        self.options = replace(request.options, keep_masks=True) if request.caption else request.options
        self.tasks = self.options.tasks_for(self.info)
        check_media(view, "image")
        if request.caption:
            check_prompt_field(self.dataset, request.field)
        else:
            if request.geometry not in GEOMETRIES:
                raise EnrichError(f"Got the geometry {request.geometry!r}; wanted one of {', '.join(GEOMETRIES)}.")
            check_result_field(self.dataset, request.field, request.geometry)
        if request.existing not in EXISTING:
            raise EnrichError(f"Got existing={request.existing!r}; wanted one of {', '.join(EXISTING)}.")
        if request.prompt_field is not None:
            check_prompt_field(self.dataset, request.prompt_field)
        self.todo, self.skipped = self._todo()
        self.total = len(self.todo)
        key = f"pam_{request.field}" + ("_captions" if request.caption else "")
        self.run = Provenance(self.dataset, key, "pam_caption" if request.caption else "pam_perceive", self.info)

    def _todo(self) -> tuple[Collected, int]:
        """The samples to work on, and how many have results already and are left as they are; counted in the
        database, as the form asks at every change.
        """
        request = self.request
        view = self.view
        prompts = request.field if request.caption else request.prompt_field
        if prompts is not None:
            if request.label_ids is not None:
                view = view.select_labels(ids=list(request.label_ids), fields=prompts)
            view = with_labels(view, prompts)
        if request.caption or request.existing != "skip" or self.dataset.get_field(request.field) is None:
            return view, 0
        return without_labels(view, request.field), len(with_labels(view, request.field))

    @property
    def mask_folder(self) -> Path:
        """Where masks go that are kept as files."""
        if self.request.mask_folder:
            return Path(self.request.mask_folder).expanduser()
        return mask_folder(self.dataset, self.request.field)

    def wanted(self, label: Label) -> bool:
        """Whether a label is to be looked at."""
        request = self.request
        if request.label_ids is not None and label.id not in request.label_ids:
            return False
        return not (request.caption and request.existing == "skip" and label.get_attribute_value("model", None))

    def steps(self, model: RegionModel | None = None) -> Iterator[Progress]:
        """Do the work, sample by sample; one step before the first.

        What is finished is in the dataset; the same request goes on from there.
        """
        request = self.request
        region_model = model or plugins.load_model(self.info.name, request.device)
        result = field_type(self.dataset, request.field) or (
            fo.Polylines if request.geometry == "polyline" else fo.Detections
        )
        with said_read_only(self.dataset):
            self.dataset._sample_collection.update_one({"_id": None}, {"$set": {"nothing": None}})  # may it be done?
            self.fields.declare(self.dataset, result)
        prompts = request.field if request.caption else request.prompt_field
        samples = Samples(self.todo)
        source = SampleSource(samples, prompts, self.wanted)
        sink: Sink = (
            TextSink(samples, self.fields, relabel=request.relabel)
            if request.caption
            else RegionSink(
                samples,
                self.fields,
                Geometry(request.geometry, self.mask_folder),
                append=request.existing == "append",
            )
        )
        progress = Progress(total=len(source), skipped=self.skipped)
        yield progress
        started = time.monotonic()
        try:
            for step in enrich(source, sink, region_model, self.options):
                progress.done += 1
                if step.row is None:
                    progress.resumed += 1
                else:
                    self.run.register(request, tasks=list(self.tasks))
                    perception = step.row[1]
                    progress.perceived += 1
                    progress.regions += len(perception.regions)
                    progress.failed += perception.error is not None
                    progress.last_error = perception.error or progress.last_error
                    progress.seconds = time.monotonic() - started
                yield progress
            if progress.done < progress.total:  # all their labels have words, or they were deleted meanwhile
                progress.skipped += progress.total - progress.done
                progress.done = progress.total
                yield progress
        finally:
            sink.close()
            self.run.record(progress)

    def estimate(self) -> str:
        """What the work will take, in words; measured in earlier runs of this dataset, if there were any."""
        parts = [f"{self.total} samples", f"{self.info.name}: {self.info.description}"]
        parts.append(f"tasks: {', '.join(self.tasks)} in {', '.join(self.options.languages)}")
        known = self._seconds_each()
        if known is None:
            parts.append("time: not known before the first run; it is shown from the first sample on")
        else:
            parts.append(f"time: about {duration(known * self.total)} ({known:.2f} s a sample in the last run)")
        return "; ".join(parts) + ". It runs on this machine and costs nothing but time."

    def _seconds_each(self) -> float | None:
        runs = self.run.earlier()
        return next((float(run.seconds) / run.perceived for run in runs if run.perceived), None)


def with_labels(view: Collected, field: str) -> Collected:
    """The samples of a view that have labels in this field."""
    return view.match(fo.ViewField(f"{field}.{list_of(view._dataset, field)}").length() > 0)


def without_labels(view: Collected, field: str) -> Collected:
    """The samples of a view that have no labels in this field."""
    return view.match(fo.ViewField(f"{field}.{list_of(view._dataset, field)}").length() == 0)


def mask_folder(dataset: fo.Dataset, field: str) -> Path:
    """Where masks go that are kept as files, unless the user names a folder: beside FiftyOne's datasets."""
    return Path(fo.config.default_dataset_dir) / "pam_masks" / dataset.name / field


def list_of(dataset: fo.Dataset, field: str) -> str:
    """The name of the list in a field of labels: detections, keypoints or polylines."""
    kind: Any = field_type(dataset, field)
    return str(kind._LABEL_LIST_FIELD)


def duration(seconds: float) -> str:
    """Seconds in words: "40 s", "3 min", "2 h 10 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
