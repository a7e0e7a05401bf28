"""What data sets are to `pam enrich`: sources give jobs, sinks take rows. Each kind of store brings its own two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from pam_core.types import Perception
from pam_plugins.run import Job

Row = tuple[Job, Perception]
"""What became of one job. The job's id is the row's."""


class Source(Protocol):
    """Pictures, and what to look at in them."""

    def __len__(self) -> int:
        """How many jobs there are."""

    def jobs(self) -> Iterator[Job]:
        """The jobs, each with an id of its own; one that cannot be done says why in `Job.error`."""


class Sink(Protocol):
    """Where rows go. Each row is written whole or not at all."""

    def finished(self) -> Mapping[str, str]:
        """The ids of the rows that are there without an error, each with the id of the run that made it."""

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows, in place of those of the same id. They are safe when this returns."""

    def close(self) -> None:
        """Finish. Always called."""
