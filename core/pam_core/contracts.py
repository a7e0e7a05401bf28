"""What providers implement: region models and trackers, proposers and post-processors, as protocols.

A provider need not inherit from anything; it has these attributes and methods. Batch is the interface: one picture,
one prompt or one question is a batch of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pam_core.errors import UnsupportedError
from pam_core.questions import Clip, Description, ImageEmbedding, Question
from pam_core.types import ModelRef, Perception, Picture, Prompt, Region, language_codes
from pam_core.video import Fault, Frame


@dataclass(frozen=True)
class ModelInfo:
    """What a model is and can do, known without loading it.

    `tasks` maps a task's name to the language codes it can be answered in. `rank` orders models for `auto`: the
    highest of those that are ready wins. `missing` says what to do where the model cannot be loaded here, and
    `lacking`, for a task that it cannot do here only, what that needs. `video`: it has trackers, and captions clips.

    `load(device, compile)` loads the model on a device such as "cpu" or "cuda:0", compiled where `compile` asks for
    it and the model can be; None where `missing` is set.
    """

    name: str
    revision: str
    description: str
    licence: str
    tasks: Mapping[str, frozenset[str]]
    prompts: frozenset[str] = frozenset({"point", "box", "mask"})
    rank: int = 0
    video: bool = False
    missing: str | None = None
    lacking: Mapping[str, str] = field(default_factory=dict)
    load: Callable[[str, bool], RegionModel] | None = field(default=None, compare=False, repr=False)

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
class RegionModel(Protocol):
    """A model of regions. `segment` then `describe`, so that a mask can be shown before its text exists."""

    info: ModelInfo

    def embed(self, pictures: Sequence[Picture]) -> Sequence[ImageEmbedding]:
        """Encode pictures once; prompts on them are then cheap."""

    def segment(self, prompts: Sequence[tuple[ImageEmbedding, Prompt]]) -> list[list[Region]]:
        """The regions of each prompt on its picture, without texts: exactly one for points, boxes and masks.

        Raises PromptError before any work is done.
        """

    def describe(self, questions: Sequence[Question]) -> Description:
        """Start to answer questions about regions of any pictures or clips of any tracks. Raises UnsupportedError."""

    def open_tracker(self) -> Tracker:
        """A tracker without objects; several may be open at once. Raises UnsupportedError unless `info.video`."""


@runtime_checkable
class Tracker(Protocol):
    """Tracks any number of objects through frames. Memory does not grow with the number of frames.

    Regions carry `track_id`, `frame` and `time`. `presence` is the probability that the object is there; where it is
    not, its mask is empty, and it may be found again. Frames are given in order, forward or backward.
    """

    def add(self, frame: Frame, prompts: Mapping[int, Prompt]) -> list[Region]:
        """Begin to track objects, or correct tracked ones, on the current frame: the first one, or the one last given
        to `step`. One region an object, in the order of `prompts`.

        Raises PromptError before any work.
        """

    def step(self, frame: Frame) -> list[Region]:
        """Every object on the next frame, in the order of their track ids."""

    def remove(self, track_id: int) -> None:
        """Stop tracking an object. An unknown id is no error."""

    def signature(self, track_id: int) -> npt.NDArray[np.float32]:
        """The object's appearance on the current frame, a unit vector: an event ends where it turns."""

    def cut(self, track_id: int) -> Clip:
        """The object's clip since the last cut. The next clip begins with the frame this one ends with."""


class FrameSource(Protocol):
    """Where frames come from. Iterating gives frames in order, and faults for those that could not be read."""

    def __iter__(self) -> Iterator[Frame | Fault]: ...


@runtime_checkable
class ReversibleSource(FrameSource, Protocol):
    """A source whose frames can also be read backward, as those of a file can."""

    def reversed_from(self, index: int) -> Iterable[Frame | Fault]:
        """The frame with this index, then those before it down to frame 0, and faults for unreadable ones."""


@runtime_checkable
class Proposer(Protocol):
    """Finds regions without a prompt."""

    name: str
    description: str

    def propose(self, model: RegionModel, embedding: ImageEmbedding) -> list[Region]:
        """Regions of the whole picture, without texts, best first, no two alike."""


@runtime_checkable
class PostProcessor(Protocol):
    """Changes a perception before anyone sees it: label normalisation, translation, redaction."""

    name: str
    description: str

    def process(self, perception: Perception) -> Perception: ...
