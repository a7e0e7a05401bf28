"""A FiftyOne dataset as what `pam enrich` reads from and writes to, by its address.

As a source, the field of the address holds the labels to look at; without one, everything is looked for. As a sink,
regions go to the field (`regions` if left out) of the samples that the rows are about: those of the same id or the
same file. Pictures that the dataset does not have are added to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import fiftyone as fo

from fiftyone_plugin.checks import EnrichError, check_media, check_prompt_field, check_result_field, said_read_only
from fiftyone_plugin.dataset import Collected, Fields, RegionSink, Samples, SampleSource
from fiftyone_plugin.labels import Geometry
from fiftyone_plugin.work import mask_folder, with_labels
from pam_core.types import ModelRef
from pam_plugins.datasets.contracts import Row

METHOD = "pam_enrich"


def open_source(address: str) -> SampleSource:
    """The pictures of a dataset or saved view. Raises EnrichError."""
    view, field = _open(address)
    check_media(view, "image")
    if field:
        check_prompt_field(view._dataset, field)
        view = with_labels(view, field)
    return SampleSource(Samples(view), field or None)


def open_sink(address: str) -> DatasetSink:
    """A field of a dataset, made where it is not there yet. Raises EnrichError."""
    view, field = _open(address, make=True)
    dataset, field = view._dataset, field or "regions"
    check_media(view, "image")
    check_result_field(dataset, field, "mask")
    ours = dataset.get_field(field) is None or _key(field) in dataset.list_runs()
    if not ours and len(with_labels(dataset.view(), field)):
        raise EnrichError(
            f"The field {field!r} holds labels that were not made by pam, and regions would replace them; "
            "wanted a new name, such as regions. Nothing was changed."
        )
    return DatasetSink(dataset, Fields(field))


class DatasetSink:
    """Regions in a dataset, whoever has the pictures. `FIELD_source` is the row's id where it is not the sample's."""

    def __init__(self, dataset: fo.Dataset, fields: Fields) -> None:
        self.dataset, self.fields = dataset, fields
        self.source_field = f"{fields.result}_source"
        with said_read_only(dataset):
            fields.declare(dataset, fo.Detections)
            if dataset.get_field(self.source_field) is None:
                dataset.add_sample_field(self.source_field, fo.StringField)
        geometry = Geometry("mask", mask_folder(dataset, fields.result))
        self.regions = RegionSink(Samples(dataset.view()), fields, geometry)
        ids, paths, sources = dataset.values(["id", "filepath", self.source_field])
        self.by_path = dict(zip(paths, ids, strict=True))
        self.by_row = {sample_id: sample_id for sample_id in ids}
        self.by_row |= {source: sample_id for source, sample_id in zip(sources, ids, strict=True) if source}
        self.registered = False

    def finished(self) -> Mapping[str, str]:
        runs = self.regions.finished()
        return {row: runs[sample_id] for row, sample_id in self.by_row.items() if sample_id in runs}

    def write(self, rows: Sequence[Row]) -> None:
        if not self.registered:
            self._register(rows[0][1].model)
        for job, _ in rows:
            if job.id not in self.by_row:
                self.by_row[job.id] = self._sample(str(job.path.absolute()), job.id)
        self.regions.write([(replace(job, id=self.by_row[job.id]), perception) for job, perception in rows])

    def _register(self, model: ModelRef) -> None:
        """The custom run of the dataset that says which model made the field."""
        config = self.dataset.init_run(
            method=METHOD, model=f"{model.name} {model.revision}", description=model.description
        )
        self.dataset.register_run(_key(self.fields.result), config, overwrite=True)
        self.registered = True

    def _sample(self, path: str, source: str) -> str:
        """The id of the sample with this file, which is added where there is none."""
        if path in self.by_path:
            self.dataset.set_values(self.source_field, {self.by_path[path]: source}, key_field="id")
        else:
            sample = fo.Sample(filepath=path)
            sample[self.source_field] = source
            self.by_path[path] = self.dataset.add_sample(sample)
        return self.by_path[path]

    def close(self) -> None:
        self.regions.close()


def _key(field: str) -> str:
    return f"pam_{field}"


def _open(address: str, *, make: bool = False) -> tuple[Collected, str]:
    """The dataset or saved view, and the field, of an address. Raises EnrichError."""
    place, _, field = address.partition("/")
    name, _, saved = place.partition("@")
    if not fo.dataset_exists(name):
        if not make or saved or not name:
            known = ", ".join(fo.list_datasets()) or "none"
            raise EnrichError(f"There is no FiftyOne dataset {name!r}; there is {known}.")
        return fo.Dataset(name, persistent=True).view(), field
    dataset = fo.load_dataset(name)
    if saved and saved not in dataset.list_saved_views():
        known = ", ".join(dataset.list_saved_views()) or "none"
        raise EnrichError(f"The dataset {name!r} has no saved view {saved!r}; it has {known}.")
    return (dataset.load_saved_view(saved) if saved else dataset.view()), field
