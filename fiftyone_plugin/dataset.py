"""A FiftyOne dataset as a source of pictures and a sink of regions.

Beside a field of results stand three more, written with it in one update of the sample:

    regions          what was found
    regions_run      which run found it: the model, the options and the prompts, as a short id
    regions_error    why nothing could be found, where it could not
    regions_seconds  how long the model took

Captions of labels that are there have their own three, `boxes_captions_run` and so on, so that the run that made the
labels stays on record.

The ids of the samples are read once, at the start. The samples themselves are read a thousand at a time: no cursor of
the database is open while a slow model works, and what the run writes cannot change what the run reads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.media as fom

from fiftyone_plugin.labels import Geometry, Label, attributes_of
from fiftyone_plugin.prompts import labels_in, prompt_of
from pam_core.errors import PictureError, PromptError
from pam_core.media.images import picture_size
from pam_core.types import Perception
from pam_plugins.datasets.contracts import Job, Row

CHUNK = 1000
Collected = Any
"""A dataset or a view; FiftyOne's SampleCollection."""


@dataclass(frozen=True)
class LabelJob(Job):
    """A job whose prompts are labels of the sample, by their ids."""

    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fields:
    """The names of a field of results and of those beside it; of `captions` that were added to it, the latter."""

    result: str
    captions: bool = False

    @property
    def run(self) -> str:
        return self._beside("run")

    @property
    def error(self) -> str:
        return self._beside("error")

    @property
    def seconds(self) -> str:
        return self._beside("seconds")

    def _beside(self, what: str) -> str:
        return f"{self.result}_captions_{what}" if self.captions else f"{self.result}_{what}"

    @property
    def all(self) -> tuple[str, ...]:
        return (self.result, self.run, self.error, self.seconds)

    def declare(self, dataset: fo.Dataset, result: type[fo.Label]) -> None:
        """Make the fields that are not there yet."""
        if dataset.get_field(self.result) is None:
            dataset.add_sample_field(self.result, fo.EmbeddedDocumentField, embedded_doc_type=result)
        self.declare_notes(dataset)

    def declare_notes(self, dataset: fo.Dataset) -> None:
        """Make those beside the results that are not there yet."""
        for name, kind in ((self.run, fo.StringField), (self.error, fo.StringField), (self.seconds, fo.FloatField)):
            if dataset.get_field(name) is None:
                dataset.add_sample_field(name, kind)


def flat(view: Collected) -> Collected:
    """The samples of a view; of groups, those of every slice."""
    return view.select_group_slices(_allow_mixed=True) if view.media_type == fom.GROUP else view


class Samples:
    """The samples of a view, by id, in the view's order, as they were when this was made."""

    def __init__(self, view: Collected) -> None:
        self.dataset: fo.Dataset = view._dataset
        self.ids: list[str] = view.values("id")

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, ids: Sequence[str], fields: Collection[str]) -> Iterator[fo.Sample]:
        """The samples with these ids that are still there, in order, with only these fields."""
        there = [name for name in fields if self.dataset.get_field(name) is not None]
        for start in range(0, len(ids), CHUNK):
            part = list(ids[start : start + CHUNK])
            yield from flat(self.dataset).select(part, ordered=True).select_fields(there).iter_samples()

    def values(self, field: str) -> list[Any]:
        """A field's values by sample, in order; None where the sample is gone."""
        found: dict[str, Any] = {}
        for start in range(0, len(self.ids), CHUNK):
            part = flat(self.dataset).select(self.ids[start : start + CHUNK])
            found.update(zip(*part.values(["id", field]), strict=True))
        return [found.get(sample_id) for sample_id in self.ids]

    def having(self, field: str) -> dict[str, Any]:
        """A field's values by the ids of the samples that have one."""
        if self.dataset.get_field(field) is None:
            return {}
        return {sample_id: value for sample_id, value in zip(self.ids, self.values(field), strict=True) if value}

    def write(self, changes: Mapping[str, Callable[[fo.Sample], None]], fields: Collection[str]) -> None:
        """Change the samples with these ids, each in one update, all in one request."""
        with self.dataset.save_context(batch_size=len(changes) or 1) as context:
            for sample in self.read(list(changes), fields):
                changes[sample.id](sample)
                context.save(sample)


class SampleSource:
    """The pictures of a view, with the labels of `prompt_field` as prompts; without it, everything in them.

    Samples without a label to look at are left out.
    """

    def __init__(
        self, samples: Samples, prompt_field: str | None = None, wanted: Callable[[Label], bool] = lambda label: True
    ) -> None:
        self.samples, self.prompt_field, self.wanted = samples, prompt_field, wanted

    def __len__(self) -> int:
        return len(self.samples)

    def jobs(self) -> Iterator[LabelJob]:
        fields = ["filepath", self.prompt_field] if self.prompt_field else ["filepath"]
        for sample in self.samples.read(self.samples.ids, fields):
            path = Path(sample.filepath)
            if self.prompt_field is None:
                yield LabelJob(path, id=sample.id)
                continue
            labels = [label for label in labels_in(sample[self.prompt_field]) if self.wanted(label)]
            if labels:
                yield _job(path, sample.id, labels)


def _job(path: Path, sample_id: str, labels: Sequence[Label]) -> LabelJob:
    try:
        width, height = picture_size(path)
        prompts = tuple(prompt_of(label, width, height) for label in labels)
    except (PictureError, PromptError) as error:
        return LabelJob(path, id=sample_id, error=str(error))
    return LabelJob(path, prompts, sample_id, labels=tuple(label.id for label in labels))


class RegionSink:
    """Regions as new labels of a field. `append` keeps the labels that are there."""

    def __init__(self, samples: Samples, fields: Fields, geometry: Geometry, *, append: bool = False) -> None:
        self.samples, self.fields, self.geometry, self.append = samples, fields, geometry, append

    def finished(self) -> Mapping[str, str]:
        return self.samples.having(self.fields.run)

    def write(self, rows: Sequence[Row]) -> None:
        changes = {job.id: self._change(perception) for job, perception in rows}
        self.samples.write(changes, self.fields.all)

    def _change(self, perception: Perception) -> Callable[[fo.Sample], None]:
        def change(sample: fo.Sample) -> None:
            note(sample, self.fields, perception)
            if perception.error is not None:
                return
            found = self.geometry.labels(perception.regions, sample.id)
            if self.append and sample[self.fields.result] is not None:
                name = found._LABEL_LIST_FIELD
                found[name] = [*sample[self.fields.result][name], *found[name]]
            sample[self.fields.result] = found

        return change

    def close(self) -> None:
        self.samples.dataset.add_dynamic_sample_fields(fields=self.fields.result)


class TextSink:
    """Texts for labels that are there: their geometry stays as it is, and their label where `relabel` is off."""

    def __init__(self, samples: Samples, fields: Fields, *, relabel: bool = False) -> None:
        self.samples, self.fields, self.relabel = samples, fields, relabel

    def finished(self) -> Mapping[str, str]:
        return self.samples.having(self.fields.run)

    def write(self, rows: Sequence[Row]) -> None:
        changes = {job.id: self._change(job, perception) for job, perception in rows}
        self.samples.write(changes, self.fields.all)

    def _change(self, job: Job, perception: Perception) -> Callable[[fo.Sample], None]:
        def change(sample: fo.Sample) -> None:
            note(sample, self.fields, perception)
            if perception.error is not None or not isinstance(job, LabelJob):
                return
            labels = {label.id: label for label in labels_in(sample[self.fields.result])}
            for label_id, region in zip(job.labels, perception.regions, strict=True):
                if label_id in labels:  # it may have been deleted meanwhile
                    self._describe(labels[label_id], region.label, dict(attributes_of(region)))

        return change

    def _describe(self, label: Label, named: str | None, attributes: Mapping[str, Any]) -> None:
        if named and (self.relabel or not label.label):
            label.label = named
        elif named:
            label["perceived_label"] = named
        for name, value in attributes.items():
            if isinstance(value, str) and name != "prompt":
                label[name] = value

    def close(self) -> None:
        self.samples.dataset.add_dynamic_sample_fields(fields=self.fields.result)


def note(sample: fo.Sample, fields: Fields, perception: Perception) -> None:
    """What is known of a sample's perception beside its regions."""
    sample[fields.error] = perception.error
    sample[fields.run] = perception.run if perception.error is None else None
    sample[fields.seconds] = sum(perception.seconds.values()) if perception.error is None else None
