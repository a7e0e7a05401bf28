"""What data sets are to `pam enrich`: sources give jobs, sinks take rows. Each kind of store brings its own two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from pam_core.types import Perception
from pam_plugins.pipeline import Job

Row = tuple[Job, Perception]
"""What became of one job. The job's id is the row's."""


class StoreError(RuntimeError):
    """A source or a sink that cannot be used: says what was got, what was wanted and what to do."""


class Source(Protocol):
    """Pictures, and what to look at in them."""

    def __len__(self) -> int:
        """How many jobs there are."""

    def jobs(self) -> Iterator[Job]:
        """The jobs, each with an id of its own; one that cannot be done says why in `Job.error`.

        They are taken one by one as the work goes on, so a source need not hold them all. Raises StoreError.
        """


class Sink(Protocol):
    """Where rows go. Each row is written whole or not at all."""

    def finished(self) -> Mapping[str, str]:
        """The ids of the rows that are there without an error, each with the id of the run that made it."""

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows, in place of those of the same id. They are safe when this returns. Raises StoreError."""

    def close(self) -> None:
        """Finish. Always called, after a failed write too. Raises StoreError."""


@runtime_checkable
class Store(Protocol):
    """A kind of place where data sets are. `address` is what the user writes after the kind's name and a colon."""

    name: str
    description: str

    def source(self, address: str) -> Source:
        """The data set there, to read pictures from. Raises StoreError, and UnsupportedError where it cannot be."""

    def sink(self, address: str) -> Sink:
        """The data set there, to write rows to. Raises StoreError, and UnsupportedError where it cannot be."""
