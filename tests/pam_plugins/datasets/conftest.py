"""The made-up model as a plugin, in this process and in others; sources and sinks that are lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from pam_core.engine.cache import shared_cache
from pam_core.types import Perception
from pam_plugins.datasets.contracts import Job, Result
from tests.pam_plugins.cli.conftest import environment, fake, python  # noqa: F401  (fixtures)
from tests.pam_plugins.render.conftest import scene  # noqa: F401  (a fixture)


@pytest.fixture(autouse=True)
def empty_cache() -> None:
    shared_cache.clear()


@dataclass
class ListSource:
    """Jobs from a list; `taken` counts those that were taken."""

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
    """Results in a list, and the size of each write."""

    results: list[Result] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)
    closed: bool = False

    def has(self, job: Job, run: str) -> bool:
        return any(result.job.id == job.id and result.perception.run == run for result in self._finished())

    def read(self, job: Job, run: str) -> Perception:
        return next(result.perception for result in self._finished() if result.job.id == job.id)

    def _finished(self) -> list[Result]:
        return [result for result in self.results if result.perception.error is None]

    def write(self, results: Sequence[Result]) -> None:
        self.results += results
        self.writes.append(len(results))

    def close(self) -> None:
        self.closed = True

    @property
    def ids(self) -> list[str]:
        return [result.job.id for result in self.results]
