"""`pipeline.run` on Ray Data: the same results from several processes, each with the model and a GPU or a core.

Source and sinks stay in this process. Jobs go to Ray in slices, so memory does not grow with the source; results come
back as they are made, not in order. Importing this module needs no Ray.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import socket
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pam_core.allocator import keep_freed_memory
from pam_core.contracts import ModelInfo
from pam_core.errors import PamError, RayRunError, needs_extra
from pam_core.types import Perception
from pam_plugins import pipeline, plugins
from pam_plugins.datasets.contracts import Job, Result, Sink, Source
from pam_plugins.options import Options

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

SLICE = 10_000
"""Jobs that Ray is given at a time. The actors are started anew, with the model, for each slice."""

BATCH = 4
"""Jobs in a batch: what is done again where an actor dies."""

TRIES = 4
"""How often a batch is given to an actor before it is given up."""

LOST_BATCHES = 3
"""Batches in a slice that may be given up before the run ends at once: the machine is at fault, not the pictures."""

LOCAL = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on every system: no cluster, so all its servers are on the loopback
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
STORE_BYTES = 256 * 2**20
"""Ray's shared memory on this machine. Perceptions pass through it; pictures do not."""

RESUMABLE = "What is finished is kept; the same command goes on from there."


def run(
    source: Source | Sequence[Job],
    sinks: Sequence[Sink],
    info: ModelInfo,
    options: Options,
    actors: int,
    device: str = "auto",
    address: str | None = None,
) -> Generator[Result]:
    """`pipeline.run` with `actors` processes; results in any order, resumed ones among them.

    Ray is started on this machine, for this run and reachable from it only, unless `address` names a cluster; there,
    the pictures are read by the machines that do the work, from the same paths. In a program that has started Ray
    already, that is used. Where everything is finished, Ray is not started. Raises RayRunError and DatasetError.
    """
    resume = pipeline.Resume(sinks, info, options)

    def results() -> Generator[Result]:
        placed = ""
        with ExitStack() as stack:
            for each in _slices(pipeline.jobs_of(source), resume):
                if isinstance(each, Result):
                    yield each
                    continue
                placed = placed or stack.enter_context(_cluster(actors, device, address))
                yield from _perceive(each, info.name, options, actors, placed)

    with closing(results()) as made, pipeline.BatchWriter(sinks) as writer:
        for result in made:
            writer.add(result)
            yield result


def _slices(jobs: Iterator[Job], resume: pipeline.Resume) -> Iterator[Result | list[Job]]:
    """The results that are there already, and slices of the jobs to do."""
    waiting: list[Job] = []
    for job in jobs:
        if resume.has(job):
            yield resume.result(job)
            continue
        waiting.append(job)
        if len(waiting) == SLICE:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


class Perceiver:
    """An actor: a model, loaded once, on one thread or one GPU. Errors are returned as rows, for the run to raise:
    Ray would wrap them in errors of its own.
    """

    def __init__(self, model: str, options: Options, device: str, folder: str) -> None:
        if Path(folder).is_dir():
            os.chdir(folder)  # paths mean the same as where the command was given
        os.environ["OMP_NUM_THREADS"] = "1"
        keep_freed_memory()
        self.options = options
        self.error: str | None = None
        try:
            self.model = plugins.load_model(model, device)
        except Exception as error:  # a provider's own, whatever it is
            logger.exception("loading %s", model)
            self.error = f"The model {model!r} could not be loaded: {_message(error)}"
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)

    def __call__(self, batch: pa.Table) -> pa.Table:
        numbers, jobs = zip(*map(pickle.loads, batch["job"].to_pylist()), strict=True)
        error, lines = self.error, [""] * len(jobs)
        if error is None:
            try:
                lines = [r.perception.to_line() for r in pipeline.run(jobs, (), self.model, self.options)]
            except Exception as failure:  # a plugin's mistake
                logger.exception("jobs %s", numbers)
                error = _message(failure)
        return _table(number=numbers, line=lines, error=[error or ""] * len(jobs))


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, PamError) else f"{type(error).__name__}: {error}."


def _table(**columns: Sequence[object]) -> pa.Table:
    import pyarrow as pa

    return pa.table({name: list(values) for name, values in columns.items()})


def _perceive(jobs: list[Job], model: str, options: Options, actors: int, device: str) -> Generator[Result]:
    """The results of the jobs as they are made. Raises RayRunError."""
    import ray.data
    from ray.exceptions import RayError

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    waiting = dict(enumerate(jobs))
    items = [{"job": pickle.dumps(item)} for item in waiting.items()]
    rows = ray.data.from_items(items, override_num_blocks=-(-len(items) // BATCH)).map_batches(
        Perceiver,
        fn_constructor_kwargs={"model": model, "options": options, "device": device, "folder": str(Path.cwd())},
        batch_size=BATCH,
        batch_format="pyarrow",
        num_cpus=1,
        num_gpus=1 if device == "cuda" else None,
        compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=1),
        max_restarts=TRIES * (LOST_BATCHES + 1),
        max_task_retries=TRIES - 1,
    )
    context = rows.context
    context.max_errored_blocks = LOST_BATCHES
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    try:
        with closing(iter(rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))) as batches:
            for row in (row for batch in batches for row in batch.to_pylist()):
                if row["error"]:
                    raise RayRunError(f"{row['error']} {RESUMABLE}")
                yield Result(waiting.pop(row["number"]), Perception.from_json(json.loads(row["line"])))
    except RayError as error:
        reason = str(error).strip().partition("\n")[0]
        raise RayRunError(
            f"Ray failed, or more than {LOST_BATCHES} batches of pictures ended their actors: {reason} {RESUMABLE}"
        ) from error
    if waiting:
        ids = ", ".join(job.id for job in waiting.values())
        raise RayRunError(f"{TRIES} times an actor died over one of these pictures: {ids}. {RESUMABLE}")


@contextmanager
def _cluster(actors: int, device: str, address: str | None) -> Iterator[str]:
    """Start or join Ray; yields the device of each actor, cpu or cuda."""
    os.environ.update(LOCAL if address is None else {"RAY_USAGE_STATS_ENABLED": "0"})
    with needs_extra("ray", "A run with several actors"):
        import pyarrow  # noqa: F401
        import ray.data  # reads the environment when it is imported

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
    """Raise RayRunError where nothing answers at HOST:PORT; Ray itself would try for minutes."""
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
        raise RayRunError(f"Nothing answers at {address} ({error}); wanted the address of a Ray cluster.") from error


def _device(actors: int, device: str, resources: dict[str, float]) -> str:
    """Where each actor computes: "auto" is a GPU each where there are so many. Raises RayRunError."""
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    kind = ("cuda" if gpus >= actors else "cpu") if device == "auto" else device.partition(":")[0]
    if kind == "cuda" and gpus < actors:
        raise RayRunError(f"Got {actors} actors with a GPU each; Ray has {gpus}. Ask for fewer, or for --device cpu.")
    if cpus < actors:
        raise RayRunError(f"Got {actors} actors with a core each; Ray has {cpus}. Ask for fewer.")
    return kind
