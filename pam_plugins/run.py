"""A run over many pictures: what is finished is skipped, what fails is recorded, the rest goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pam_core.contracts import ExportWriter, Picture, RegionModel
from pam_core.images import PictureError, read_picture
from pam_core.masks import MaskError
from pam_core.types import Perception, Prompt, PromptError
from pam_plugins.manager import get_plugins
from pam_plugins.perceive import Options, perceive
from pam_plugins.results import ResultsFile


@dataclass(frozen=True)
class Job:
    """One picture and what to look at in it; without prompts, everything."""

    path: Path
    prompts: tuple[Prompt, ...] = ()


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
    for job in jobs:
        name = str(job.path)
        key = (name, options.run_id(model.info, job.prompts))
        if results is not None and key in results:
            perception = results[key]
            if writers:
                _write(writers, perception, _reread(job.path))
            yield Outcome(perception, resumed=True)
            continue
        picture: Picture | None = None
        try:
            started = time.perf_counter()
            picture = read_picture(job.path)
            read = time.perf_counter() - started
            perception = perceive(picture, job.prompts, model=model, options=options, name=name, read_seconds=read)
        except (PictureError, PromptError) as error:
            height, width = picture.shape[:2] if picture is not None else (0, 0)
            perception = Perception(name, width, height, model.info.ref, run=key[1], error=_with_name(name, error))
            get_plugins().tell("pam_perceived", perception=perception)
        if results is not None:
            results.append(perception)
        _write(writers, perception, picture)
        yield Outcome(perception)


def _write(writers: Sequence[ExportWriter], perception: Perception, picture: Picture | None) -> None:
    for writer in writers:
        writer.write(perception, picture)


def _with_name(name: str, error: Exception) -> str:
    """What went wrong, and with which picture."""
    return str(error) if str(error).startswith(name) else f"{name}: {error}"


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
