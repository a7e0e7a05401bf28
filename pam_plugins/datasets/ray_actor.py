"""What runs inside Ray: a desk that hands out jobs, a stream of their numbers, actors with a model each.

Only numbers and rows pass through Ray Data. The jobs of a number lie at the desk until its rows are back, so that an
actor that was started again gets the very same ones.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data.block import BlockMetadata

from pam_core.allocator import keep_freed_memory
from pam_core.contracts import RegionModel
from pam_core.types import Perception
from pam_plugins import plugins
from pam_plugins.datasets.contracts import Job
from pam_plugins.options import Options
from pam_plugins.pipeline import perceive_job, read_ahead

logger = logging.getLogger(__name__)

TRIES = 4
"""So often are the same jobs given out; a picture that kills whoever looks at it must not do so for ever."""


class Desk:
    """Keeps the jobs that are under way, by number."""

    def __init__(self) -> None:
        self.jobs: dict[int, list[Job]] = {}
        self.known = 0
        self.end: int | None = None
        self.given: Counter[int] = Counter()
        self.changed = asyncio.Condition()

    async def put(self, number: int, jobs: list[Job]) -> None:
        async with self.changed:
            self.jobs[number] = jobs
            self.known = number + 1
            self.changed.notify_all()

    async def finish(self, count: int) -> None:
        async with self.changed:
            self.end = count
            self.changed.notify_all()

    async def exists(self, number: int) -> bool:
        """Whether there are jobs of this number, when that is known."""
        async with self.changed:
            await self.changed.wait_for(lambda: number < self.known or self.end is not None)
            return self.end is None or number < self.end

    async def take(self, number: int) -> list[Job]:
        """The jobs of this number; none where they have been given out too often."""
        self.given[number] += 1
        return self.jobs[number] if self.given[number] <= TRIES else []

    async def drop(self, number: int) -> None:
        self.jobs.pop(number, None)
        self.given.pop(number, None)


class Numbers(ray.data.Datasource):  # type: ignore[misc]
    """0, 1, 2, ... as long as the desk has jobs of that number; one block each."""

    def __init__(self, desk: Any) -> None:
        super().__init__()
        self.desk = desk

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: object, **__: object) -> list[ray.data.ReadTask]:
        desk = self.desk

        def read() -> Iterator[pa.Table]:
            number = 0
            while ray.get(desk.exists.remote(number)):
                yield pa.table({"number": [number]})
                number += 1

        return [ray.data.ReadTask(read, BlockMetadata(None, None, None, None))]


class Perceiver:
    """An actor: a model, loaded once, on one thread or one GPU. What fails is told as a row, for the caller to raise:
    Ray would wrap it in errors of its own.
    """

    def __init__(self, desk: Any, model: str, options: Options, device: str, folder: str) -> None:
        if Path(folder).is_dir():
            os.chdir(folder)  # paths mean the same as where the command was given
        os.environ["OMP_NUM_THREADS"] = "1"
        keep_freed_memory()
        self.desk = desk
        self.options = options
        self.model: RegionModel | None = None
        self.failed = ""
        try:
            self.model = plugins.load_model(model, device)
        except Exception as error:  # a provider's own, whatever it is
            logger.exception("loading %s", model)
            self.failed = f"The model {model!r} could not be loaded: {type(error).__name__}: {error}."
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)

    def __call__(self, numbers: pa.Table) -> pa.Table:
        (number,) = numbers["number"].to_pylist()
        rows: list[bytes] = []
        failed = self.failed
        if self.model is not None:
            jobs = ray.get(self.desk.take.remote(number))
            try:
                with closing(read_ahead(jobs)) as readings:
                    found = [perceive_job(job, reading, self.model, self.options)[0] for job, reading in readings]
                rows = [perception.to_line().encode() for perception in found]
            except Exception as error:  # a plugin's mistake
                logger.exception("chunk %d", number)
                failed = f"{type(error).__name__}: {error}."
        return pa.table(
            {
                "number": [number],
                "rows": pa.array([rows], pa.list_(pa.binary())),
                "failed": pa.array([failed], pa.string()),
            }
        )


def open_desk() -> Any:
    return ray.remote(Desk).options(num_cpus=0).remote()


def put(desk: Any, number: int, jobs: list[Job]) -> None:
    desk.put.remote(number, jobs)


def finish(desk: Any, count: int) -> None:
    """Tell that there are no numbers from `count` on."""
    desk.finish.remote(count)


def drop(desk: Any, number: int) -> None:
    """Tell that the rows of this number are there."""
    desk.drop.remote(number)


def perceive(
    desk: Any, model: str, options: Options, actors: int, device: str
) -> Generator[tuple[int, list[Perception], str]]:
    """What was seen in the jobs of 0, 1, 2, ..., in this order, or why nothing was.

    Nothing was seen, and no reason is given, where actors died of these jobs `TRIES` times.
    """
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    said = {"desk": desk, "model": model, "options": options, "device": device, "folder": str(Path.cwd())}
    # No core for the one who counts: all are for those who look.
    numbers = ray.data.read_datasource(Numbers(desk), num_cpus=0, override_num_blocks=1)
    rows = numbers.map_batches(
        Perceiver,
        fn_constructor_kwargs=said,
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=1,
        num_gpus=1 if device == "cuda" else None,
        compute=ray.data.ActorPoolStrategy(size=actors),  # Ray Data restarts its actors and repeats their tasks
    )
    context = rows.context
    context.target_max_block_size = 1  # bytes: each number is a block, and goes on its way at once
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with closing(iter(rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))) as batches:
        for batch in batches:
            for record in batch.to_pylist():
                found = [Perception.from_json(json.loads(line)) for line in record["rows"]]
                yield record["number"], found, record["failed"]
