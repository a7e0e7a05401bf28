"""What runs over images and videos share: the request, its progress, the record of the run, samples and their fields.

A run is made of a checked request. Its results are written as they come; the same request resumes where an earlier
run stopped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import fiftyone as fo

from fiftyone_plugin.checks import check_choice, check_media, check_writable
from fiftyone_plugin.convert import model_name
from fiftyone_plugin.mongo import SampleCollection, all_slices, dataset_of
from pam_core.contracts import ModelInfo, RegionModel
from pam_plugins import plugins

CHUNK = 1000
"""Samples read at once."""


@dataclass(frozen=True)
class RunRequest:
    """What to do with a view: `field` is where results go, and labels of `prompt_field` are the prompts, of
    `label_ids` only these. `existing` says what to do with samples that have results.
    """

    field: str
    prompt_field: str | None = None
    label_ids: tuple[str, ...] | None = None
    model: str = "auto"
    device: str = "auto"
    existing: str = "skip"


@dataclass
class RunProgress(ABC):
    """Samples so far: `done` is all of them, `perceived` those that the model worked on, `resumed` those that an
    earlier run finished, `skipped` those that are left as they are.
    """

    total: int
    done: int = 0
    perceived: int = 0
    failed: int = 0
    resumed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    last_error: str | None = None

    @property
    def share(self) -> float:
        """The share of the work that is done, from 0 to 1."""
        return self.done / self.total if self.total else 1.0

    def text(self) -> str:
        """One line for a progress bar or a log."""
        counts = {"resumed": self.resumed, "skipped": self.skipped, "failed": self.failed}
        parts = [*self.counts(), *(f"{count} {name}" for name, count in counts.items() if count)]
        if left := self.seconds_left():
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)

    @abstractmethod
    def counts(self) -> list[str]:
        """How much is done, in words."""

    def seconds_left(self) -> float:
        """The estimated rest of the run; 0 where not known."""
        return 0.0


class ResultFields:
    """The names of a field of results and of the sample fields beside it, which are written with it:

    regions          the results
    regions_run      the run's id: a hash of the model, the options and the prompts
    regions_error    why the sample failed
    regions_seconds  how long it took
    tracks_events    what the tracks of a video do

    Texts for existing labels (`captions`) have their own three, `boxes_captions_run` and so on, so that the run that
    made the labels stays on record.
    """

    def __init__(self, result: str, captions: bool = False) -> None:
        self.result = result
        self.name = f"{result}_captions" if captions else result
        self.run, self.error, self.seconds = (f"{self.name}_{what}" for what in ("run", "error", "seconds"))
        self.events = f"{result}_events"

    def declare(self, dataset: fo.Dataset, labels: Mapping[str, type[fo.Label]]) -> None:
        """Add the fields of labels, by name, and those beside them, where they do not exist."""
        kinds = {self.run: fo.StringField, self.error: fo.StringField, self.seconds: fo.FloatField}
        for name in [name for name in {**labels, **kinds} if dataset.get_field(name) is None]:
            if name in kinds:
                dataset.add_sample_field(name, kinds[name])
                continue
            add = dataset.add_frame_field if name.startswith("frames.") else dataset.add_sample_field
            add(name.removeprefix("frames."), fo.EmbeddedDocumentField, embedded_doc_type=labels[name])


class Samples:
    """The samples of a view, by id, in the view's order, as they are when this is made.

    Samples are read a thousand at a time: no cursor of the database is open while a slow model works, and what the
    run writes cannot change what the run reads.
    """

    def __init__(self, view: SampleCollection) -> None:
        self.dataset = dataset_of(view)
        self.ids: list[str] = view.values("id")

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, ids: Sequence[str], fields: Collection[str]) -> Iterator[fo.Sample]:
        """The samples with these ids that still exist, in order, with these fields only."""
        existing = [name for name in fields if self.dataset.get_field(name) is not None]
        for part in self._parts(ids):
            yield from part.select_fields(existing).iter_samples()

    def values(self, field: str) -> dict[str, Any]:
        """A field's values by the ids of the samples that have one, in order."""
        if self.dataset.get_field(field) is None:
            return {}
        values: dict[str, Any] = {}
        for part in self._parts(self.ids):
            values.update(zip(*part.values(["id", field]), strict=True))
        return {sample_id: value for sample_id, value in values.items() if value}

    def _parts(self, ids: Sequence[str]) -> Iterator[SampleCollection]:
        for start in range(0, len(ids), CHUNK):
            yield all_slices(self.dataset).select(list(ids[start : start + CHUNK]), ordered=True)

    def write(self, changes: Mapping[str, Callable[[fo.Sample], None]], fields: Collection[str]) -> None:
        """Change the samples with these ids, each in one update, all in one request."""
        with self.dataset.save_context(batch_size=len(changes) or 1) as context:
            for sample in self.read(list(changes), fields):
                changes[sample.id](sample)
                context.save(sample)


class RunRecord:
    """The custom run `pam_NAME` of a dataset: which model and request made a field, and how the run went.

    A run without anything to do leaves the record of the one that did the work.
    """

    def __init__(self, dataset: fo.Dataset, name: str, method: str, info: ModelInfo, request: RunRequest) -> None:
        self.dataset, self.key, self.method, self.info, self.request = dataset, f"pam_{name}", method, info, request
        self._started = False

    def start(self, **settings: Any) -> None:
        """Register the run, of its label ids only how many; later calls do nothing."""
        if not self._started:
            self._started = True
            config = self.dataset.init_run(
                method=self.method,
                model=model_name(self.info.ref),
                description=self.info.description,
                licence=self.info.licence,
                request={**asdict(self.request), "label_ids": len(self.request.label_ids or ())},
                **settings,
            )
            self.dataset.register_run(self.key, config, overwrite=True)

    def finish(self, progress: RunProgress) -> None:
        """Save the counts of a run that was started."""
        if self._started:
            self.dataset.save_run_results(self.key, self.dataset.init_run_results(self.key, **asdict(progress)))

    def seconds_each(self, count: str) -> float | None:
        """Seconds for each of a `count` of the latest run of this method and model that has any; None without one."""
        for key in reversed(self.dataset.list_runs(method=self.method)):
            if self.dataset.get_run_info(key).config.model == model_name(self.info.ref):
                results = self.dataset.load_run_results(key)
                if results is not None and getattr(results, count):
                    return float(results.seconds / getattr(results, count))
        return None


AnyRequest = TypeVar("AnyRequest", bound=RunRequest)
AnyProgress = TypeVar("AnyProgress", bound=RunProgress)


class DatasetRun(ABC, Generic[AnyRequest, AnyProgress]):
    """A checked request. Making it changes nothing in the dataset; `steps` does.

    A subclass sets `view` to the samples to work on, and `skipped` to how many are left out.
    """

    media: ClassVar[str]
    noun: ClassVar[str] = "samples"
    existing: ClassVar[Mapping[str, str]]
    """The values of a request's `existing`, with descriptions."""
    progress: ClassVar[type[RunProgress]]
    timed: ClassVar[str] = "perceived"
    """The count of pictures in the progress."""

    def __init__(
        self, view: SampleCollection, request: AnyRequest, info: ModelInfo, method: str, *, captions: bool = False
    ) -> None:
        check_media(view, self.media)
        check_choice("existing", request.existing, self.existing)
        self.view, self.request, self.info = view, request, info
        self.dataset = dataset_of(view)
        self.fields = ResultFields(request.field, captions)
        self.record = RunRecord(self.dataset, self.fields.name, method, info, request)
        self.skipped = 0

    @property
    def total(self) -> int:
        """How many samples there are to work on; counted in the database, as a form asks at every change."""
        return len(self.view)

    def steps(self, model: RegionModel | None = None) -> Iterator[AnyProgress]:
        """Do the work; the progress before it and after every picture, the same object each time.

        What is done is in the dataset; the same request resumes there.
        """
        loaded = model or plugins.load_model(self.info.name, self.request.device)
        with check_writable(self.dataset):
            self.declare()
        samples = Samples(self.view)
        progress: Any = self.progress(total=len(samples), skipped=self.skipped)
        yield progress
        try:
            yield from self.work(samples, loaded, progress)
        finally:
            self.record.finish(progress)

    @abstractmethod
    def declare(self) -> None:
        """Add the fields of the results."""

    @abstractmethod
    def work(self, samples: Samples, model: RegionModel, progress: AnyProgress) -> Iterator[AnyProgress]:
        """Go through the samples, and count in `progress`."""

    @abstractmethod
    def made(self) -> str:
        """What is made of each sample, in words."""

    def estimate(self) -> str:
        """What the run will take, in words; measured in earlier runs of this dataset, if there were any."""
        total, each = self.total, self.record.seconds_each(self.timed)
        time = "not known before the first run; it is shown from the first picture on"
        if each is not None:
            time = f"{each:.2f} s a picture in the last run"
            time = f"about {duration(each * total)} ({time})" if self.timed == "perceived" else time
        parts = (f"{total} {self.noun}", f"{self.info.name}: {self.info.description}", self.made(), f"time: {time}")
        return "; ".join(parts) + ". It runs on this machine and costs nothing but time."

    @property
    def mask_folder(self) -> Path:
        """Where masks go that are kept as files, unless the user names a folder."""
        return mask_folder(self.dataset.name, self.request.field)


def mask_folder(*names: str) -> Path:
    """A folder for masks beside FiftyOne's datasets."""
    return Path(fo.config.default_dataset_dir, "pam_masks", *names)


def duration(seconds: float) -> str:
    """Seconds in words: "40 s", "3 min", "2 h 10 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
