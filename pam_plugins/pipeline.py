"""A run over many pictures: what is finished is skipped, what fails is recorded, the rest goes on.

The files are read and decoded ahead of the model, by a thread; a few decoded pictures wait for it, never more.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pam_core.contracts import ExportWriter, Picture, RegionModel
from pam_core.masks import MaskError
from pam_core.media.images import PictureError, read_picture
from pam_core.types import Perception, Prompt, PromptError
from pam_plugins.api import Options, perceive
from pam_plugins.datasets.jsonl import ResultsFile
from pam_plugins.plugins import get_plugins

READ_AHEAD = 2
"""Decoded pictures that may wait for the model."""


@dataclass(frozen=True)
class Job:
    """One picture and what to look at in it; without prompts, everything.

    `id` is what the picture is called where it comes from (a sample of a dataset, a row of a table), its path if
    left out. `error` says why there is nothing to do: a prompt that could not be read, say.
    """

    path: Path
    prompts: tuple[Prompt, ...] = ()
    id: str = ""
    error: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", self.id or str(self.path))


@dataclass(frozen=True)
class Outcome:
    """What became of one job. `resumed` where it was finished by an earlier run."""

    perception: Perception
    resumed: bool = False


def run(
    jobs: Iterable[Job],
    model: RegionModel,
    options: Options,
    results: ResultsFile | None = None,
    writers: Sequence[ExportWriter] = (),
) -> Iterator[Outcome]:
    """Perceive every job in turn, yielding each when it is safely in the results file and with the writers."""

    def key(job: Job) -> tuple[str, str]:
        return (str(job.path), options.run_id(model.info, job.prompts))

    for job, reading in read_ahead(jobs, done=lambda job: results is not None and key(job) in results):
        if reading is None and results is not None:
            perception = results[key(job)]
            if writers:
                _write(writers, perception, _reread(job.path))
            yield Outcome(perception, resumed=True)
            continue
        perception, picture = perceive_job(job, reading, model, options)
        if results is not None:
            results.append(perception)
        _write(writers, perception, picture)
        yield Outcome(perception)


Reading = tuple[Picture, float]
"""A decoded picture, and the seconds it took to read."""


def read_ahead(
    jobs: Iterable[Job], done: Callable[[Job], bool] = lambda job: False
) -> Generator[tuple[Job, Future[Reading] | None]]:
    """The jobs in order, each with its picture being read; None in its place where the job is `done`."""
    waiting: deque[tuple[Job, Future[Reading] | None]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
        for job in jobs:
            waiting.append((job, None if done(job) else reader.submit(_read, job)))
            if len(waiting) > READ_AHEAD:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()


def _read(job: Job) -> Reading:
    if job.error is not None:
        raise PromptError(job.error)
    started = time.perf_counter()
    return read_picture(job.path), time.perf_counter() - started


def perceive_job(
    job: Job, reading: Future[Reading] | None, model: RegionModel, options: Options
) -> tuple[Perception, Picture | None]:
    """What becomes of one job, and its picture; what fails in the picture or its prompts is in the perception."""
    picture: Picture | None = None
    name = str(job.path)
    try:
        picture, seconds = reading.result() if reading is not None else _read(job)
        found = perceive(picture, job.prompts, model=model, options=options, name=name, read_seconds=seconds)
        return found, picture
    except (PictureError, PromptError) as error:
        height, width = picture.shape[:2] if picture is not None else (0, 0)
        said = str(error) if str(error).startswith(name) else f"{name}: {error}"
        run_id = options.run_id(model.info, job.prompts)
        failed = Perception(name, width, height, model.info.ref, run=run_id, error=said)
        get_plugins().tell("pam_perceived", perception=failed)
        return failed, picture


def _write(writers: Sequence[ExportWriter], perception: Perception, picture: Picture | None) -> None:
    for writer in writers:
        writer.write(perception, picture)


def _reread(path: Path) -> Picture | None:
    try:
        return read_picture(path)
    except PictureError:
        return None


def read_jobs(path: Path, images: Sequence[Path] = ()) -> list[Job]:
    """Jobs from a JSON Lines file of prompts, one job per picture, in the order of first mention.

    A line is `{"image": "cat.jpg", "points": [[x, y], [x, y, 0]], "box": [x1, y1, x2, y2], "mask": {COCO RLE}}`;
    `image` is relative to the file and may be left out where exactly one picture is named in `images`; other
    fields are ignored. Raises PromptError with the line's number.
    """
    prompts: dict[Path, list[Prompt]] = {image: [] for image in images}
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # not splitlines: JSON may hold U+2028 and its like
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"{path}: cannot be read ({error}); wanted a JSON Lines file of prompts.") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data: Mapping[str, Any] = json.loads(line)
            image = _image_of(data, path, images)
            prompts.setdefault(image, []).append(Prompt.from_json(data))
        except (PromptError, MaskError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise PromptError(f"{path}, line {number}: {error}") from error
    return [Job(image, tuple(of_image)) for image, of_image in prompts.items() if of_image]


def _image_of(data: Mapping[str, Any], path: Path, images: Sequence[Path]) -> Path:
    if "image" in data:
        return path.parent / data["image"]
    if len(images) == 1:
        return images[0]
    raise PromptError(f'got no "image" and {len(images)} pictures named; wanted one of the two.')
