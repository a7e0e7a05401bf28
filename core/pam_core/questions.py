"""Questions about regions and clips, and descriptions: their answers as they are generated.

A description is advanced in steps, takes more questions while it runs and drops cancelled ones, so that many callers
can share one batch and a click never waits for a caption.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from pam_core.errors import GenerationError
from pam_core.types import Region, language_codes


@runtime_checkable
class ImageEmbedding(Protocol):
    """What a model keeps of a picture between prompts. Opaque but for this."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def nbytes(self) -> int:
        """Bytes held in memory, for the cache's budget."""


class Clip(Protocol):
    """One object from one frame to another, ready to be described. Opaque but for this."""

    @property
    def track_id(self) -> int: ...

    @property
    def first(self) -> int: ...

    @property
    def last(self) -> int: ...


@dataclass(frozen=True)
class Generation:
    """How texts are generated. Models without a language model ignore it.

    Temperature 0 takes the likeliest token, always. `task_tokens` limits single tasks. A `repetition_penalty` of None
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
            raise GenerationError(f"Got the temperature {self.temperature}; wanted 0 (the likeliest token) or more.")
        if not 0 < self.top_p <= 1:
            raise GenerationError(f"Got top_p {self.top_p}; wanted more than 0 and at most 1.")
        if self.repetition_penalty is not None and not self.repetition_penalty > 0:
            raise GenerationError(
                f"Got the repetition penalty {self.repetition_penalty}; wanted more than 0; 1 is none."
            )

    def tokens_for(self, task: str) -> int:
        """The most tokens an answer to this task may have."""
        return self.task_tokens.get(task, self.max_tokens)


@dataclass(frozen=True, eq=False)
class Question:
    """One task in one language, about a region of a picture (`embedding` and `region`) or about a `clip`.

    `context` holds the regions that were asked about together, this one included, for models whose texts mention
    neighbours. `previous` is the caption of the clip before. Questions are compared by identity.
    """

    task: str
    language: str = "en"
    embedding: ImageEmbedding | None = None
    region: Region | None = None
    context: Sequence[Region] = ()
    clip: Clip | None = None
    previous: str = ""
    generation: Generation = Generation()


@dataclass(frozen=True, eq=False)
class TextPiece:
    """Text that was added to a growing answer."""

    question: Question
    text: str


@dataclass(frozen=True, eq=False)
class Answer:
    """A finished answer: the whole text. `scores` are added to the region's, by task."""

    question: Question
    text: str
    scores: Mapping[str, float] = field(default_factory=dict)


class Description(ABC):
    """Answers under way. Iterate to the end, or call `step` until `done`."""

    @abstractmethod
    def add(self, questions: Sequence[Question]) -> None:
        """Take more questions. Raises UnsupportedError, and then takes none of them."""

    @abstractmethod
    def cancel(self, question: Question) -> None:
        """Stop answering a question. One that is answered or unknown is no error."""

    @abstractmethod
    def step(self) -> list[TextPiece | Answer]:
        """Advance by one step, such as a token of every running answer; what is new."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether every question is answered or cancelled."""

    def __iter__(self) -> Iterator[TextPiece | Answer]:
        while not self.done:
            yield from self.step()


class BatchDescription(Description):
    """The description of a model that answers at once: each step passes one group of questions to `answer`.

    `check` raises UnsupportedError for questions the model cannot answer; `key` groups the questions of a step.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        answer: Callable[[Sequence[Question]], Sequence[Answer]],
        check: Callable[[Sequence[Question]], None] = lambda questions: None,
        key: Callable[[Question], Hashable] = lambda question: None,
    ) -> None:
        self._answer, self._check, self._key = answer, check, key
        self._waiting: list[Question] = []
        self.add(questions)

    def add(self, questions: Sequence[Question]) -> None:
        self._check(questions)
        self._waiting += questions

    def cancel(self, question: Question) -> None:
        self._waiting = [other for other in self._waiting if other is not question]

    def step(self) -> list[TextPiece | Answer]:
        if not self._waiting:
            return []
        first = self._key(self._waiting[0])
        group = [question for question in self._waiting if self._key(question) == first]
        self._waiting = [question for question in self._waiting if self._key(question) != first]
        return list(self._answer(group))

    @property
    def done(self) -> bool:
        return not self._waiting


def ask(
    embedding: ImageEmbedding,
    regions: Sequence[Region],
    tasks: Sequence[str],
    languages: Sequence[str] = ("en",),
    generation: Generation = Generation(),
) -> list[Question]:
    """A question for every region of a picture, task and language; all regions are each other's context."""
    context = tuple(regions)
    return [
        Question(task, language, embedding, region, context, generation=generation)
        for region in context
        for task in tasks
        for language in language_codes(languages)
    ]


def with_answers(regions: Sequence[Region], description: Description) -> list[Region]:
    """The same regions with the texts and scores of a description, which is iterated to its end."""
    answered = {id(region): region for region in regions}
    for answer in description:
        if isinstance(answer, Answer) and answer.question.region is not None:
            question = answer.question
            texts = {question.task: {question.language: answer.text}}
            answered[id(question.region)] = answered[id(question.region)].with_texts(texts, answer.scores)
    return [answered[id(region)] for region in regions]
