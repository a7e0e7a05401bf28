"""What providers promise: models, region proposers, post-processors and exporters, as protocols.

A provider need not inherit from anything; it has these attributes and methods. Everything that can loop takes many:
one prompt is a batch of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pam_core.types import ModelRef, Perception, Prompt, Region, language_codes

Picture = npt.NDArray[np.uint8]
"""An RGB picture (height, width, 3), upright."""


class UnsupportedError(ValueError):
    """A model was asked for a task, a language or a kind of prompt that it does not have."""


class GenerationError(ValueError):
    """Settings of text generation that make no sense."""


@dataclass(frozen=True)
class ModelInfo:
    """What a model is and can do, known without loading it.

    `tasks` maps a task's name to the language codes it can be answered in. `rank` orders models for `auto`: the
    highest of those that are ready wins. `missing` says what to do where the model cannot be loaded here, and
    `lacking`, for a task that it cannot do here only, what that needs.
    """

    name: str
    revision: str
    description: str
    licence: str
    tasks: Mapping[str, frozenset[str]]
    prompts: frozenset[str] = frozenset({"point", "box", "mask"})
    rank: int = 0
    video: bool = False
    streaming: bool = False
    missing: str | None = None
    lacking: Mapping[str, str] = field(default_factory=dict)

    @property
    def ref(self) -> ModelRef:
        return ModelRef(self.name, self.revision, self.description)

    def check(self, tasks: Iterable[str], languages: Iterable[str]) -> None:
        """Raise UnsupportedError unless every task can be answered in every language."""
        wanted = language_codes(languages)
        for task in tasks:
            if task in self.lacking:
                raise UnsupportedError(f"{self.name} cannot do the task {task!r} here: {self.lacking[task]}")
            if task not in self.tasks:
                raise UnsupportedError(
                    f"{self.name} cannot do the task {task!r}; it can do {', '.join(self.tasks) or 'none'}. "
                    "Leave the task out or choose another model (`pam models`)."
                )
            lacking = [language for language in wanted if language not in self.tasks[task]]
            if lacking:
                raise UnsupportedError(
                    f"{self.name} cannot answer {task!r} in {', '.join(lacking)}; "
                    f"it can in {', '.join(sorted(self.tasks[task]))}."
                )


@runtime_checkable
class ImageEmbedding(Protocol):
    """What a model keeps of a picture between prompts."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def nbytes(self) -> int:
        """Bytes held in memory, for the cache's budget."""


@dataclass(frozen=True)
class Generation:
    """How texts are generated. Models without a language model ignore it.

    Temperature 0 takes the likeliest word, always. `task_tokens` limits single tasks. A `repetition_penalty` of None
    is the one that the model was released with.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float | None = None
    seed: int = 0
    task_tokens: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limits = {"max_tokens": self.max_tokens, **self.task_tokens}
        for name, value in limits.items():
            if value < 1:
                raise GenerationError(f"Got {name} {value}; wanted at least 1.")
        if not self.temperature >= 0:
            raise GenerationError(f"Got the temperature {self.temperature}; wanted 0 (the likeliest word) or more.")
        if not 0 < self.top_p <= 1:
            raise GenerationError(f"Got top_p {self.top_p}; wanted more than 0 and at most 1.")
        if self.repetition_penalty is not None and not self.repetition_penalty > 0:
            raise GenerationError(
                f"Got the repetition penalty {self.repetition_penalty}; wanted more than 0; 1 is none."
            )

    def tokens_for(self, task: str) -> int:
        """The most tokens an answer to this task may have."""
        return self.task_tokens.get(task, self.max_tokens)


@runtime_checkable
class RegionModel(Protocol):
    """A model of regions. `segment` then `describe`, so that a mask can be shown before its text exists."""

    info: ModelInfo

    def embed(self, picture: Picture) -> ImageEmbedding:
        """Look at a picture once; further prompts on it are cheap."""

    def segment(self, embedding: ImageEmbedding, prompts: Sequence[Prompt]) -> list[Region]:
        """One region per prompt, in order, without texts. Raises PromptError before any work is done."""

    def describe(
        self,
        embedding: ImageEmbedding,
        regions: Sequence[Region],
        tasks: Sequence[str],
        languages: Sequence[str] = ("en",),
        generation: Generation = Generation(),
    ) -> list[Region]:
        """The same regions with texts for every task in every language. Raises UnsupportedError."""


@runtime_checkable
class Proposer(Protocol):
    """Finds regions without a prompt."""

    name: str
    description: str

    def propose(self, model: RegionModel, embedding: ImageEmbedding) -> list[Region]:
        """Regions of the whole picture, without texts, best first, no two alike."""


@runtime_checkable
class PostProcessor(Protocol):
    """Changes what was perceived before anyone sees it: label normalisation, translation, redaction."""

    name: str
    description: str

    def process(self, perception: Perception) -> Perception: ...


class ExportWriter(Protocol):
    """An export under way. `close` finishes the files and is always called."""

    def write(self, perception: Perception, picture: Picture | None) -> None:
        """Add one picture; `picture` is None where it could not be read (`perception.error` says why)."""

    def close(self) -> None: ...


@runtime_checkable
class Exporter(Protocol):
    """Writes perceptions into a folder in some format."""

    name: str
    description: str

    def open(self, folder: Path) -> ExportWriter:
        """Start an export into a folder that exists. Raises OSError where it cannot be written."""


@dataclass(frozen=True)
class CacheStats:
    """What a cache did and holds."""

    hits: int = 0
    misses: int = 0
    entries: int = 0
    nbytes: int = field(default=0)
    max_bytes: int = 0
