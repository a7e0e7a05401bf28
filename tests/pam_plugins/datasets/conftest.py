"""The made-up model as a plugin, in this process and in others; stores that are lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from pam_core.engine.cache import shared_cache
from pam_plugins.datasets.contracts import Job, Row
from tests.pam_plugins.cli.conftest import environment, fake, python  # noqa: F401  (fixtures)


@pytest.fixture(autouse=True)
def nothing_seen_before() -> None:
    shared_cache.clear()


@dataclass
class ListSource:
    """Jobs from a list; `taken` counts those that were asked for."""

    listed: Sequence[Job]
    taken: int = 0

    def __len__(self) -> int:
        return len(self.listed)

    def jobs(self) -> Iterator[Job]:
        for job in self.listed:
            self.taken += 1
            yield job


@dataclass
class ListSink:
    """Rows in a list, and the size of each write."""

    rows: list[Row] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)
    closed: bool = False

    def finished(self) -> Mapping[str, str]:
        return {job.id: perception.run for job, perception in self.rows if perception.error is None}

    def write(self, rows: Sequence[Row]) -> None:
        self.rows += rows
        self.writes.append(len(rows))

    def close(self) -> None:
        self.closed = True

    @property
    def ids(self) -> list[str]:
        return [job.id for job, _ in self.rows]
