"""FiftyOne datasets for `pam enrich`: `fiftyone:DATASET/FIELD`, or `fiftyone:DATASET@SAVED_VIEW/FIELD`.

As a source, FIELD holds the labels to look at; without it, everything is looked for. As a sink, regions go to FIELD
(`regions` if left out) of the samples that the rows are about: those of the same id or the same file. Pictures that
the dataset does not have are added to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fiftyone_plugin.dataset import Collected
    from pam_plugins.enrich.stores import Row, Sink, Source


class FiftyOneStore:
    """The datasets of this machine's FiftyOne. Importing it connects to the database, so that is left for later."""

    name = "fiftyone"
    description = "a FiftyOne dataset: DATASET/FIELD or DATASET@SAVED_VIEW/FIELD"

    def source(self, address: str) -> Source:
        from fiftyone_plugin.checks import check_media, check_prompt_field
        from fiftyone_plugin.dataset import Samples, SampleSource
        from fiftyone_plugin.work import with_labels

        view, field = _open(address)
        check_media(view, "image")
        if field:
            check_prompt_field(view._dataset, field)
            view = with_labels(view, field)
        return SampleSource(Samples(view), field or None)

    def sink(self, address: str) -> Sink:
        import fiftyone as fo

        from fiftyone_plugin.checks import check_media, check_result_field
        from fiftyone_plugin.dataset import Fields

        view, field = _open(address, make=True)
        field = field or "regions"
        check_media(view, "image")
        check_result_field(view._dataset, field, "mask")
        fields = Fields(field)
        fields.declare(view._dataset, fo.Detections)
        return DatasetSink(view._dataset, fields)


class DatasetSink:
    """Regions in a dataset, whoever has the pictures. `FIELD_source` is the row's id where it is not the sample's."""

    def __init__(self, dataset: Collected, fields: object) -> None:
        import fiftyone as fo

        from fiftyone_plugin.dataset import Fields, RegionSink, Samples
        from fiftyone_plugin.labels import Geometry
        from fiftyone_plugin.work import mask_folder

        assert isinstance(fields, Fields)
        self.dataset, self.fields = dataset, fields
        self.source_field = f"{fields.result}_source"
        if dataset.get_field(self.source_field) is None:
            dataset.add_sample_field(self.source_field, fo.StringField)
        geometry = Geometry("mask", mask_folder(dataset, fields.result))
        self.regions = RegionSink(Samples(dataset.view()), fields, geometry)
        ids, paths, sources = dataset.values(["id", "filepath", self.source_field])
        self.by_path = dict(zip(paths, ids, strict=True))
        self.by_row = {sample_id: sample_id for sample_id in ids}
        self.by_row |= {source: sample_id for source, sample_id in zip(sources, ids, strict=True) if source}

    def finished(self) -> Mapping[str, str]:
        runs = self.regions.finished()
        return {row: runs[sample_id] for row, sample_id in self.by_row.items() if sample_id in runs}

    def write(self, rows: Sequence[Row]) -> None:
        from dataclasses import replace

        for job, _ in rows:
            if job.id not in self.by_row:
                self.by_row[job.id] = self._sample(str(job.path.absolute()), job.id)
        self.regions.write([(replace(job, id=self.by_row[job.id]), perception) for job, perception in rows])

    def _sample(self, path: str, source: str) -> str:
        """The id of the sample with this file, which is added where there is none."""
        import fiftyone as fo

        if path in self.by_path:
            self.dataset.set_values(self.source_field, {self.by_path[path]: source}, key_field="id")
        else:
            sample = fo.Sample(filepath=path)
            sample[self.source_field] = source
            self.by_path[path] = self.dataset.add_sample(sample)
        return self.by_path[path]

    def close(self) -> None:
        self.regions.close()


def _open(address: str, *, make: bool = False) -> tuple[Collected, str]:
    """The dataset or saved view, and the field, of an address. Raises EnrichError."""
    import fiftyone as fo

    from fiftyone_plugin.checks import EnrichError

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
