"""Enrichment on Ray Data: the same work on several GPUs or cores, the same rows in the same order.

The source and the sink stay in this process. It hands out jobs a few at a time, as many as can be under way, so that
neither a long source nor a slow sink fills its memory; Ray Data brings the rows back in order. An actor that dies is
started again by Ray, and what it had is done again. Importing this module needs no Ray.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from pam_core.contracts import ModelInfo
from pam_core.errors import RayRunError
from pam_core.types import Perception
from pam_plugins.datasets.batches import Step, write_in_batches
from pam_plugins.datasets.contracts import Job, Sink, Source
from pam_plugins.options import Options

CHUNK = 4
"""Pictures an actor is given at a time: what is done again when it dies, twice over at most."""

UNDER_WAY = 6
"""Chunks for each actor that are handed out and not yet back: enough that one slow picture holds up nobody."""

LONGEST = 1000
"""Jobs in a chunk, those that were finished before included."""

LOCAL = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on every system: no cluster, so all its servers are on the loopback
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
STORE_BYTES = 256 * 2**20
"""Ray's shared memory on this machine. Rows pass through it; pictures do not."""


def enrich(
    source: Source,
    sink: Sink,
    info: ModelInfo,
    options: Options,
    actors: int,
    device: str = "auto",
    address: str | None = None,
) -> Generator[Step]:
    """`local.enrich` with `actors` processes, each with the model and a core or a GPU of its own.

    Ray is started on this machine, for this run and reachable from it only, unless `address` names a cluster; there,
    the pictures are read by the machines that do the work, from the same paths. In a program that has started Ray
    already, that is used. Raises RayRunError, and DatasetError.
    """
    return write_in_batches(_steps(source, sink, info, options, actors, device, address), sink)


@dataclass(frozen=True)
class _Chunk:
    """Jobs in order, each with whether it has to be done."""

    jobs: list[tuple[Job, bool]]

    @property
    def to_do(self) -> list[Job]:
        return [job for job, wanted in self.jobs if wanted]

    def steps(self, perceptions: Iterable[Perception] = ()) -> Iterator[Step]:
        found = iter(perceptions)
        for job, wanted in self.jobs:
            yield Step((job, next(found)) if wanted else None)


def _chunks(jobs: Iterator[Job], done: Callable[[Job], bool]) -> Iterator[_Chunk]:
    chunk: list[tuple[Job, bool]] = []
    wanted = 0
    for job in jobs:
        chunk.append((job, not done(job)))
        wanted += chunk[-1][1]
        if wanted == CHUNK or len(chunk) == LONGEST:
            yield _Chunk(chunk)
            chunk, wanted = [], 0
    if chunk:
        yield _Chunk(chunk)


def _steps(
    source: Source, sink: Sink, info: ModelInfo, options: Options, actors: int, device: str, address: str | None
) -> Generator[Step]:
    finished = sink.finished()
    chunks = _chunks(source.jobs(), lambda job: finished.get(job.id) == options.run_id(info, job.prompts))
    under_way: deque[_Chunk] = deque()
    for chunk in chunks:
        if chunk.to_do:
            under_way.append(chunk)
            break
        yield from chunk.steps()
    else:
        return  # nothing to do, so nothing to start
    with _cluster(actors, device, address) as placed, _sentence():
        from pam_plugins.datasets import ray_actor

        desk = ray_actor.open_desk()
        put = 0

        def hand_out(chunk: _Chunk) -> bool:
            nonlocal put
            if chunk.to_do:
                ray_actor.put(desk, put, chunk.to_do)
                put += 1
            return bool(chunk.to_do)

        def hand_out_more() -> None:
            for chunk in chunks:
                under_way.append(chunk)
                if hand_out(chunk):
                    return
            ray_actor.finish(desk, put)

        hand_out(under_way[0])
        for _ in range(actors * UNDER_WAY - 1):
            hand_out_more()
        with closing(ray_actor.perceive(desk, info.name, options, actors, placed)) as seen:
            for expected, (number, perceptions, failed) in enumerate(seen):
                while not under_way[0].to_do:
                    yield from under_way.popleft().steps()
                if number != expected:
                    raise RayRunError(
                        f"Ray gave the rows of chunk {number}; wanted those of {expected}. Run it again."
                    )
                if len(perceptions) != len(to_do := under_way[0].to_do):
                    ids = ", ".join(job.id for job in to_do)
                    reason = failed or f"{ray_actor.TRIES} times an actor died over one of these pictures: {ids}."
                    raise RayRunError(f"{reason} What is finished is kept; the same command goes on from there.")
                ray_actor.drop(desk, number)
                hand_out_more()
                yield from under_way.popleft().steps(perceptions)
        for chunk in under_way:
            if chunk.to_do:
                raise RayRunError("Ray ended before all rows were there. Run the same command again: it goes on.")
            yield from chunk.steps()


@contextmanager
def _cluster(actors: int, device: str, address: str | None) -> Iterator[str]:
    """Ray, started here or joined; gives the device for each actor."""
    if find_spec("ray") is None or find_spec("pyarrow") is None:
        raise RayRunError("Several actors need Ray, which is not installed: pip install 'pam-plugins[ray]'")
    os.environ.update(LOCAL if address is None else {"RAY_USAGE_STATS_ENABLED": "0"})
    import ray  # reads the environment when it is imported

    joined = ray.is_initialized()
    if not joined:
        if address is not None:
            _check_reachable(address)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if address is None:
                ray.init(
                    address="local",
                    num_cpus=actors,
                    include_dashboard=False,
                    object_store_memory=STORE_BYTES,
                    _node_ip_address="127.0.0.1",
                    **quiet,
                )
            else:
                ray.init(address=address, **quiet)
        except (OSError, RuntimeError, ValueError) as error:
            where = "on this machine" if address is None else f"at {address}"
            raise RayRunError(f"Ray cannot be reached {where}: {error}") from error
    try:
        yield _device(actors, device, ray.cluster_resources())
    finally:
        if not joined:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise RayRunError where nobody answers at HOST:PORT; Ray itself would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise RayRunError(
            f"Got the Ray address {address!r}; wanted HOST:PORT, or auto for the cluster on this machine."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise RayRunError(f"Nobody answers at {address} ({error}); wanted the address of a Ray cluster.") from error


def _device(actors: int, device: str, there: dict[str, float]) -> str:
    """Where each actor computes: "auto" is a GPU each where there are so many. Raises RayRunError."""
    cpus, gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))
    kind = ("cuda" if gpus >= actors else "cpu") if device == "auto" else device.partition(":")[0]
    if kind == "cuda" and gpus < actors:
        raise RayRunError(f"Got {actors} actors with a GPU each; Ray has {gpus}. Ask for fewer, or for --device cpu.")
    if cpus < actors:
        raise RayRunError(f"Got {actors} actors with a core each; Ray has {cpus}. Ask for fewer.")
    return kind


@contextmanager
def _sentence() -> Iterator[None]:
    """Make what Ray raises a sentence."""
    from ray.exceptions import RayError as AnyRayError

    try:
        yield
    except AnyRayError as error:
        raise RayRunError(
            f"Ray failed: {str(error).strip().partition(chr(10))[0]} What is finished is kept; the same command goes "
            "on from there."
        ) from error
