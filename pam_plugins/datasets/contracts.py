"""What goes through a run: jobs from a source, results into sinks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from pam_core.errors import PictureError
from pam_core.media.images import read_picture
from pam_core.types import Perception, Picture, Prompt


@dataclass(frozen=True)
class Job:
    """One picture and the prompts on it; without prompts, everything in it.

    `id` names the picture in its data set (a sample, a row of a table); its path if left out. `error` says why
    nothing can be done: a prompt that could not be read, say.
    """

    path: Path
    prompts: tuple[Prompt, ...] = ()
    id: str = ""
    error: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", self.id or str(self.path))


@dataclass(frozen=True, eq=False)
class Result:
    """A job and its perception. `resumed`: an earlier run made it."""

    job: Job
    perception: Perception
    pixels: Picture | None = field(default=None, repr=False)
    resumed: bool = False

    def picture(self) -> Picture | None:
        """The picture, read again where it is not at hand; None where it cannot be read."""
        if self.pixels is not None:
            return self.pixels
        try:
            return read_picture(self.job.path)
        except PictureError:
            return None


@runtime_checkable
class Source(Protocol):
    """Pictures, and the prompts on them."""

    def __len__(self) -> int:
        """How many jobs there are."""

    def jobs(self) -> Iterator[Job]:
        """The jobs, each with an id of its own; one that cannot be done says why in `Job.error`.

        They are taken one by one as the work goes on, so a source need not hold them all. Raises DatasetError.
        """


class Sink(Protocol):
    """Where results go. Each result is written whole or not at all."""

    def write(self, results: Sequence[Result]) -> None:
        """Write results, in place of those of the same id. They are safe when this returns. Raises DatasetError."""

    def close(self) -> None:
        """Finish. Always called, after a failed write too. Raises DatasetError."""


@runtime_checkable
class ResumableSink(Sink, Protocol):
    """A sink that knows what is in it, so that a run can go on where an earlier one stopped."""

    def has(self, job: Job, run: str) -> bool:
        """Whether the job's result of this run is there, without an error."""

    def read(self, job: Job, run: str) -> Perception:
        """The perception that `has` told of."""


@runtime_checkable
class SourceFormat(Protocol):
    """A kind of source. `address` is what the user writes after the format's name and a colon."""

    name: str
    description: str

    def open(self, address: str) -> Source:
        """Open the data set at an address. Raises DatasetError."""


@runtime_checkable
class SinkFormat(Protocol):
    """A kind of sink. `address` is what the user writes after the format's name and a colon: a folder, a file."""

    name: str
    description: str

    def open(self, address: str) -> Sink:
        """Open, or make, the sink at an address. Raises DatasetError."""
