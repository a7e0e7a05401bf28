"""The main job: a picture and prompts in, a perception out. Every door goes through here."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pam_core.contracts import Generation, ImageEmbedding, ModelInfo, Picture, RegionModel, UnsupportedError
from pam_core.engine.cache import content_key, shared_cache
from pam_core.media.images import PictureError, read_picture
from pam_core.types import Perception, Prompt, PromptError, Region, language_codes
from pam_plugins import registry
from pam_plugins.plugins import get_plugins

DEFAULT_PROPOSER = "grid"
ON_REQUEST_TASKS = frozenset({"text"})
"""Tasks that are slow for most regions and empty for most: done only where asked for by name."""


@dataclass(frozen=True)
class Options:
    """What is asked of each picture. Without `tasks`, all that the model can do in these languages.

    Where `redraw` is off, the mask of a prompt is the region's mask as it is; the model adds words only.
    """

    tasks: tuple[str, ...] | None = None
    languages: tuple[str, ...] = ("en",)
    proposer: str = DEFAULT_PROPOSER
    postprocess: tuple[str, ...] = ()
    generation: Generation = Generation()
    redraw: bool = True

    def tasks_for(self, info: ModelInfo) -> tuple[str, ...]:
        """The tasks to put to a model. Raises UnsupportedError where it cannot do them."""
        if not self.languages:
            raise UnsupportedError("Got no language; wanted at least one, such as en or zh.")
        if self.tasks is not None:
            info.check(self.tasks, self.languages)
            return self.tasks
        wanted = set(language_codes(self.languages))
        able = tuple(task for task, known in info.tasks.items() if wanted <= known and task not in ON_REQUEST_TASKS)
        if not able:
            raise UnsupportedError(f"{info.name} has no task that it can do in {', '.join(sorted(wanted))}.")
        return able

    def run_id(self, info: ModelInfo, prompts: Sequence[Prompt]) -> str:
        """Names the model, the options and the prompts: equal where the result would be equal."""
        said: dict[str, Any] = {
            "model": [info.name, info.revision],
            "tasks": self.tasks_for(info),
            "languages": self.languages,
            "proposer": None if prompts else self.proposer,
            "postprocess": self.postprocess,
            "generation": vars(self.generation),
            "prompts": [prompt.to_json() for prompt in prompts],
        }
        if not self.redraw:
            said["redraw"] = False
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def perceive(
    picture: str | Path | Picture,
    prompts: Sequence[Prompt] = (),
    *,
    model: str | RegionModel = "auto",
    options: Options = Options(),
    name: str | None = None,
    read_seconds: float | None = None,
) -> Perception:
    """Mask, label, explain and caption what `prompts` point at; without prompts, everything there is.

    `picture` is a path or an RGB array (H, W, 3) uint8; who read the array says how long that took.
    Raises PictureError, PromptError, UnsupportedError or
    NotFoundError; none of them after the model has begun its work.
    """
    region_model = registry.load_model(model) if isinstance(model, str) else model
    started = time.perf_counter()
    pixels = _pixels(picture)
    if isinstance(picture, (str, Path)):
        read_seconds = time.perf_counter() - started
    height, width = pixels.shape[:2]
    tasks = options.tasks_for(region_model.info)
    proposer = None if prompts else registry.proposer(options.proposer)
    steps = [registry.postprocessor(step) for step in options.postprocess]
    for prompt in prompts:
        check_kind(region_model.info, prompt)
        prompt.check(width, height)

    seconds = {} if read_seconds is None else {"read": read_seconds}
    with _timed(seconds, "embed"):
        embedding = embed(region_model, pixels)
    with _timed(seconds, "segment"):
        regions: list[Region] = (
            _segment(region_model, embedding, prompts, redraw=options.redraw)
            if proposer is None
            else proposer.propose(region_model, embedding)
        )
    with _timed(seconds, "describe"):
        regions = region_model.describe(embedding, regions, tasks, options.languages, options.generation)
    perception = Perception(
        image=name or (str(picture) if isinstance(picture, (str, Path)) else "array"),
        width=width,
        height=height,
        model=region_model.info.ref,
        regions=tuple(regions),
        run=options.run_id(region_model.info, prompts),
        seconds={phase: round(value, 4) for phase, value in seconds.items()},
    )
    for step in steps:
        perception = step.process(perception)
    get_plugins().tell("pam_perceived", perception=perception)
    return perception


def _segment(
    model: RegionModel, embedding: ImageEmbedding, prompts: Sequence[Prompt], *, redraw: bool
) -> list[Region]:
    """A region per prompt, in order; where `redraw` is off, masks that are there stay as they are."""
    kept = {
        index: Region(prompt.mask, model.info.ref, prompt)
        for index, prompt in enumerate(prompts)
        if prompt.mask is not None and not redraw
    }
    drawn = iter(model.segment(embedding, [prompt for index, prompt in enumerate(prompts) if index not in kept]))
    return [kept[index] if index in kept else next(drawn) for index in range(len(prompts))]


def embed(model: RegionModel, pixels: Picture) -> ImageEmbedding:
    """The model's embedding of a picture, from the cache that the whole process shares."""
    key = content_key(f"{model.info.name}@{model.info.revision}", pixels)
    return shared_cache().get_or_compute(key, lambda: model.embed(pixels.copy()))  # it outlives the call


def _pixels(picture: str | Path | Picture) -> Picture:
    if isinstance(picture, (str, Path)):
        return read_picture(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise PictureError(
            f"Got an array {picture.dtype} {picture.shape}; wanted an RGB picture uint8 (height, width, 3)."
        )
    return picture


def check_kind(info: ModelInfo, prompt: Prompt) -> None:
    """Raise PromptError unless the model takes prompts of this kind."""
    used = {
        kind
        for kind, there in (("point", prompt.points), ("box", prompt.box), ("mask", prompt.mask))
        if there is not None and there != ()
    }
    if not used <= info.prompts:
        raise PromptError(
            f"Got a {' and '.join(sorted(used))} prompt; {info.name} takes {', '.join(sorted(info.prompts))}."
        )


class _timed:
    def __init__(self, seconds: dict[str, float], phase: str) -> None:
        self.seconds, self.phase = seconds, phase

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.phase] = time.perf_counter() - self.started
