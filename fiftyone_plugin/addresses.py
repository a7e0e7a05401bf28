"""FiftyOne datasets by address, DATASET/FIELD or DATASET@SAVED_VIEW/FIELD, as sources and sinks of `pam enrich`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import fiftyone as fo

from fiftyone_plugin.checks import FiftyOneError, check_label_field, check_media, check_prompt_field, check_writable
from fiftyone_plugin.convert import Geometry, model_name
from fiftyone_plugin.images import RegionSink, SampleSource, with_labels
from fiftyone_plugin.mongo import SampleCollection, dataset_of
from fiftyone_plugin.run import ResultFields, Samples, mask_folder
from pam_core.types import ModelRef, Perception
from pam_plugins.datasets.contracts import Job, Result


def open_source(address: str) -> SampleSource:
    """The pictures of a dataset or saved view; labels of FIELD, if given, are the prompts. Raises FiftyOneError."""
    view, field = _open(address)
    check_media(view, "image")
    if field:
        check_prompt_field(dataset_of(view), field)
        view = with_labels(view, field)
    return SampleSource(Samples(view), field or None)


def open_sink(address: str) -> DatasetSink:
    """FIELD (or `regions`) of a dataset, each made where it does not exist. Raises FiftyOneError."""
    view, field = _open(address, make=True)
    dataset, field = dataset_of(view), field or "regions"
    check_media(view, "image")
    check_label_field(dataset, field, fo.Detections)
    ours = dataset.get_field(field) is None or f"pam_{field}" in dataset.list_runs()
    if not ours and len(with_labels(dataset.view(), field)):
        raise FiftyOneError(
            f"The field {field!r} holds labels that were not made by pam, and regions would replace them; "
            "wanted a new name, such as regions. Nothing was changed."
        )
    return DatasetSink(dataset, ResultFields(field))


class DatasetSink(RegionSink):
    """Regions on the samples that jobs are about: those with the job's id, or else with its file.

    A sample is added for a file that the dataset does not have. `FIELD_source` keeps the job's id where it is not the
    sample's.
    """

    def __init__(self, dataset: fo.Dataset, fields: ResultFields) -> None:
        self.dataset = dataset
        self.source_field = f"{fields.result}_source"
        with check_writable(dataset):
            fields.declare(dataset, {fields.result: fo.Detections})
            if dataset.get_field(self.source_field) is None:
                dataset.add_sample_field(self.source_field, fo.StringField)
        geometry = Geometry("mask", mask_folder(dataset.name, fields.result))
        super().__init__(Samples(dataset.view()), fields, geometry)
        ids, paths, sources = dataset.values(["id", "filepath", self.source_field])
        self._by_path = dict(zip(paths, ids, strict=True))
        self._by_job = {source: sample_id for source, sample_id in zip(sources, ids, strict=True) if source}
        self._by_job |= {sample_id: sample_id for sample_id in ids}
        self._recorded = False

    def has(self, job: Job, run: str) -> bool:
        return job.id in self._by_job and super().has(self._of_sample(job), run)

    def read(self, job: Job, run: str) -> Perception:
        return super().read(self._of_sample(job), run)

    def write(self, results: Sequence[Result]) -> None:
        if not self._recorded:
            self._record(results[0].perception.model)
        for result in results:
            if result.job.id not in self._by_job:
                self._by_job[result.job.id] = self._sample_of(result.job)
        super().write([replace(result, job=self._of_sample(result.job)) for result in results])

    def _of_sample(self, job: Job) -> Job:
        return replace(job, id=self._by_job[job.id])

    def _record(self, model: ModelRef) -> None:
        """Register the custom run that says which model made the field."""
        run = self.dataset.init_run(method="pam_enrich", model=model_name(model), description=model.description)
        self.dataset.register_run(f"pam_{self.fields.result}", run, overwrite=True)
        self._recorded = True

    def _sample_of(self, job: Job) -> str:
        """The id of the sample with the job's file, which is added where there is none."""
        path = str(job.path.absolute())
        if path in self._by_path:
            self.dataset.set_values(self.source_field, {self._by_path[path]: job.id}, key_field="id")
        else:
            sample = fo.Sample(filepath=path)
            sample[self.source_field] = job.id
            self._by_path[path] = self.dataset.add_sample(sample)
        return self._by_path[path]


def _open(address: str, *, make: bool = False) -> tuple[SampleCollection, str]:
    """The dataset or saved view, and the field, of an address. Raises FiftyOneError."""
    place, _, field = address.partition("/")
    name, _, saved = place.partition("@")
    if not fo.dataset_exists(name):
        if not make or saved or not name:
            known = ", ".join(fo.list_datasets()) or "none"
            raise FiftyOneError(f"There is no FiftyOne dataset {name!r}; there is {known}.")
        return fo.Dataset(name, persistent=True).view(), field
    dataset = fo.load_dataset(name)
    if saved and saved not in dataset.list_saved_views():
        known = ", ".join(dataset.list_saved_views()) or "none"
        raise FiftyOneError(f"The dataset {name!r} has no saved view {saved!r}; it has {known}.")
    return (dataset.load_saved_view(saved) if saved else dataset.view()), field
