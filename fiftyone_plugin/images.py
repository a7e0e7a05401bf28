"""Runs over image datasets: a view as a source of pictures and prompts, a field of labels as a sink, and the run
between them.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import fiftyone as fo

from fiftyone_plugin.checks import check_choice, check_label_field, check_prompt_field
from fiftyone_plugin.convert import Geometry, Label, labels_in, model_name, prompt_of, region_of, text_attributes
from fiftyone_plugin.mongo import SampleCollection, dataset_of, label_path, list_name
from fiftyone_plugin.run import DatasetRun, ResultFields, RunProgress, RunRequest, Samples
from pam_core.contracts import RegionModel
from pam_core.errors import PictureError, PromptError
from pam_core.media.images import picture_size
from pam_core.types import ModelRef, Perception
from pam_plugins import pipeline, plugins
from pam_plugins.datasets.contracts import Job, Result
from pam_plugins.options import Options

GEOMETRIES = {"mask": "in the database", "mask_path": "as PNG files", "polyline": "as outlines"}


@dataclass(frozen=True)
class LabelJob(Job):
    """A job whose prompts are labels of the sample; `labels` has their ids, in the order of the prompts."""

    labels: tuple[str, ...] = ()


class SampleSource:
    """The pictures of a view, with the labels of `prompt_field` as prompts; without it, everything in them.

    Only labels that `select` takes are prompts. Samples without any are left out.
    """

    def __init__(
        self, samples: Samples, prompt_field: str | None = None, select: Callable[[Label], bool] = lambda label: True
    ) -> None:
        self._samples, self._prompt_field, self._select = samples, prompt_field, select

    def __len__(self) -> int:
        return len(self._samples)

    def jobs(self) -> Iterator[LabelJob]:
        """A job for each sample; its id is the sample's."""
        fields = ["filepath", self._prompt_field] if self._prompt_field else ["filepath"]
        for sample in self._samples.read(self._samples.ids, fields):
            job = LabelJob(Path(sample.filepath), id=sample.id)
            if self._prompt_field is None:
                yield job
                continue
            labels = [label for label in labels_in(sample[self._prompt_field]) if self._select(label)]
            if not labels:
                continue
            try:
                size = picture_size(job.path)
                prompts = tuple(prompt_of(label, *size) for label in labels)
            except (PictureError, PromptError) as error:
                yield replace(job, error=str(error))
            else:
                yield replace(job, prompts=prompts, labels=tuple(label.id for label in labels))


class SampleSink(ABC):
    """Writes results to a field of the samples, the labels and what is beside them in one update of a sample."""

    def __init__(self, samples: Samples, fields: ResultFields) -> None:
        self.samples, self.fields = samples, fields
        self._runs = samples.values(fields.run)

    def has(self, job: Job, run: str) -> bool:
        """Whether the sample has results of this run, without an error, from before this sink was opened."""
        return self._runs.get(job.id) == run

    def read(self, job: Job, run: str) -> Perception:
        """The perception of a finished sample, made of its labels with a mask; with an error where that fails."""
        result = self.fields.result
        unknown = ModelRef("unknown", "")
        try:
            width, height = picture_size(job.path)
            sample = next(self.samples.read([job.id], [result]))
        except (PictureError, StopIteration) as error:
            why = str(error) or f"{job.path}: the sample was deleted meanwhile."
            return Perception(str(job.path), 0, 0, unknown, run=run, error=why)
        outlines = [label for label in labels_in(sample[result]) if not isinstance(label, fo.Keypoint)]
        regions = tuple(region for label in outlines if (region := region_of(label, width, height)) is not None)
        model = regions[0].model if regions else unknown
        return Perception(str(job.path), width, height, model, regions, run)

    def write(self, results: Sequence[Result]) -> None:
        """Write results to the samples that still exist."""
        changes = {result.job.id: partial(self._change, result) for result in results}
        fields = self.fields
        self.samples.write(changes, (fields.result, fields.run, fields.error, fields.seconds))

    def _change(self, result: Result, sample: fo.Sample) -> None:
        perception, failed = result.perception, result.perception.error is not None
        sample[self.fields.error] = perception.error
        sample[self.fields.run] = None if failed else perception.run
        sample[self.fields.seconds] = None if failed else sum(perception.seconds.values())
        if not failed:
            self.put(result, sample)

    @abstractmethod
    def put(self, result: Result, sample: fo.Sample) -> None:
        """Put the regions of a result without an error on the sample."""

    def close(self) -> None:
        """Declare the attributes of the labels, so that they can be filtered."""
        self.samples.dataset.add_dynamic_sample_fields(fields=self.fields.result)


class RegionSink(SampleSink):
    """Regions as new labels of a field, in place of those that are there; `append` keeps these."""

    def __init__(self, samples: Samples, fields: ResultFields, geometry: Geometry, *, append: bool = False) -> None:
        super().__init__(samples, fields)
        self._geometry, self._append = geometry, append

    def put(self, result: Result, sample: fo.Sample) -> None:
        labels = self._geometry.labels(result.perception.regions, sample.id)
        if self._append:
            name = list_name(labels)
            labels[name] = [*labels_in(sample[self.fields.result]), *labels[name]]
        sample[self.fields.result] = labels


class TextSink(SampleSink):
    """Texts as attributes of the labels that were the prompts; these change only where `relabel` is set."""

    def __init__(self, samples: Samples, fields: ResultFields, *, relabel: bool = False) -> None:
        super().__init__(samples, fields)
        self._relabel = relabel

    def put(self, result: Result, sample: fo.Sample) -> None:
        assert isinstance(result.job, LabelJob), "texts go to the labels that were the prompts"
        existing = {label.id: label for label in labels_in(sample[self.fields.result])}
        for label_id, region in zip(result.job.labels, result.perception.regions, strict=True):
            label = existing.get(label_id)
            if label is None:  # deleted meanwhile
                continue
            if region.label and (self._relabel or not label.label):
                label.label = region.label
            elif region.label:
                label["perceived_label"] = region.label
            label["model"] = model_name(region.model)
            for name, text in text_attributes(region.texts).items():
                label[name] = text


@dataclass(frozen=True)
class ImageRequest(RunRequest):
    """Regions for the images of a view; without a `prompt_field`, of everything in them.

    Where `caption` is set, the labels of `field` themselves are the prompts and get texts; nothing else of them
    changes (their label neither, unless `relabel`).
    """

    field: str = "regions"
    caption: bool = False
    relabel: bool = False
    options: Options = Options()
    geometry: str = "mask"
    mask_folder: str | None = None


@dataclass
class ImageProgress(RunProgress):
    """How far a run over images is."""

    regions: int = 0

    def counts(self) -> list[str]:
        return [f"{self.done} of {self.total} samples", f"{self.regions} regions"]

    def seconds_left(self) -> float:
        return self.seconds / self.perceived * (self.total - self.done) if self.perceived else 0.0


class ImageRun(DatasetRun[ImageRequest, ImageProgress]):
    """A checked request for the images of a view."""

    media = "image"
    existing: ClassVar = {
        "skip": "Leave samples that have results as they are",
        "overwrite": "Put new results in their place",
        "append": "Add to what is there",
    }
    progress = ImageProgress

    def __init__(self, view: SampleCollection, request: ImageRequest) -> None:
        caption, field = request.caption, request.field
        if caption:
            options = replace(request.options, keep_masks=True)
            request = replace(request, prompt_field=field, options=options)
        info = plugins.resolve_model(request.model)
        super().__init__(view, request, info, "pam_caption" if caption else "pam_perceive", captions=caption)
        self.tasks = request.options.tasks_for(info)
        check_choice("geometry", request.geometry, GEOMETRIES)
        if request.prompt_field is not None:
            check_prompt_field(self.dataset, request.prompt_field)
            if request.label_ids is not None:
                self.view = self.view.select_labels(ids=list(request.label_ids), fields=request.prompt_field)
            self.view = with_labels(self.view, request.prompt_field)
        if caption:
            return
        self.labels = fo.Polylines if request.geometry == "polyline" else fo.Detections
        check_label_field(self.dataset, field, self.labels)
        if request.existing == "skip" and self.dataset.get_field(field) is not None:
            self.skipped = len(with_labels(self.view, field))
            self.view = with_labels(self.view, field, some=False)

    @property
    def mask_folder(self) -> Path:
        folder = self.request.mask_folder
        return Path(folder).expanduser() if folder else super().mask_folder

    def is_prompt(self, label: Label) -> bool:
        """Whether a label of the field of prompts is one."""
        request = self.request
        if request.label_ids is not None and label.id not in request.label_ids:
            return False
        return not (request.caption and request.existing == "skip" and label.get_attribute_value("model", None))

    def declare(self) -> None:
        self.fields.declare(self.dataset, {} if self.request.caption else {self.fields.result: self.labels})

    def sink(self, samples: Samples) -> SampleSink:
        """The sink of this run's results."""
        request = self.request
        if request.caption:
            return TextSink(samples, self.fields, relabel=request.relabel)
        geometry = Geometry(request.geometry, self.mask_folder)
        return RegionSink(samples, self.fields, geometry, append=request.existing == "append")

    def work(self, samples: Samples, model: RegionModel, progress: ImageProgress) -> Iterator[ImageProgress]:
        source = SampleSource(samples, self.request.prompt_field, self.is_prompt)
        started = time.monotonic()
        with (
            closing(self.sink(samples)) as sink,
            closing(pipeline.run(source, [sink], model, self.request.options)) as results,
        ):
            for result in results:
                progress.done += 1
                if result.resumed:
                    progress.resumed += 1
                else:
                    self.record.start(tasks=list(self.tasks))
                    progress.perceived += 1
                    progress.regions += len(result.perception.regions)
                    progress.failed += result.perception.error is not None
                    progress.last_error = result.perception.error or progress.last_error
                    progress.seconds = time.monotonic() - started
                yield progress
        if left_out := progress.total - progress.done:  # all their labels have texts, or they were deleted meanwhile
            progress.skipped += left_out
            progress.done = progress.total
            yield progress

    def made(self) -> str:
        return f"tasks: {', '.join(self.tasks)} in {', '.join(self.request.options.languages)}"


def with_labels(view: SampleCollection, field: str, *, some: bool = True) -> SampleCollection:
    """The samples of a view that have labels in this field, or none."""
    count = fo.ViewField(label_path(dataset_of(view), field)).length()
    return view.match(count > 0 if some else count == 0)
