"""`pam enrich`: a whole data set through a model into another, on this process or on many."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, closing, redirect_stdout
from typing import TYPE_CHECKING

import typer

from pam_plugins.cli.arguments import choose, languages, load
from pam_plugins.cli.console import FAILED, INTERRUPTED, err, fail, note, plain, progress

if TYPE_CHECKING:
    from collections.abc import Generator

    from pam_core.contracts import ModelInfo
    from pam_plugins.datasets.batches import Step
    from pam_plugins.datasets.contracts import Sink, Source, Store
    from pam_plugins.options import Options


def command(
    source: str = typer.Argument(
        help="Where the pictures are, KIND:ADDRESS: folder:photos, coco:instances.json, parquet:table.parquet.",
        show_default=False,
    ),
    sink: str = typer.Argument(help="Where the rows go, KIND:ADDRESS: parquet:out.", show_default=False),
    model: str = typer.Option("auto", help="A name from `pam models`; auto takes the best that is ready."),
    device: str = typer.Option("auto", help="cpu, cuda, mps or auto."),
    task: list[str] = typer.Option([], help="label, explanation, brief, detailed, text; all but text if left out."),
    lang: str = typer.Option("en", help="Languages of the answers, e.g. en,zh."),
    proposer: str = typer.Option("grid", help="How to find everything (`pam plugins`)."),
    postprocess: list[str] = typer.Option([], help="A post-processor to run on the results (`pam plugins`)."),
    actors: int = typer.Option(0, min=0, help="So many processes on Ray, with a GPU or core each; 0 is this one."),
    ray_address: str = typer.Option(None, help="A Ray cluster that runs already; with --actors."),
) -> None:
    """Look at every picture of a data set and write what is seen into another; stopped, it goes on from there."""
    from pam_core.errors import (
        DatasetError,
        DeviceError,
        NotFoundError,
        NotReadyError,
        PromptError,
        RayRunError,
        UnsupportedError,
    )
    from pam_plugins.options import Options
    from pam_plugins.plugins import postprocessor
    from pam_plugins.plugins import proposer as proposer_called

    options = Options(tuple(task) or None, languages(lang), proposer, tuple(postprocess))
    try:
        if ray_address is not None and not actors:
            raise PromptError("Got --ray-address without --actors; wanted how many actors to use there.")
        read, read_at = _store(source, "SOURCE", "folder:photos")
        written, written_at = _store(sink, "SINK", "parquet:out")
        proposer_called(proposer)
        for step in postprocess:
            postprocessor(step)
        info = choose(model)
        options.tasks_for(info)
        with ExitStack() as stack:
            opened = read.source(read_at)
            into = stack.enter_context(closing(written.sink(written_at)))
            _run(opened, into, sink, info, device, options, actors, ray_address)
    except (NotReadyError, DatasetError, RayRunError) as error:
        fail(error, FAILED)
    except (PromptError, UnsupportedError, NotFoundError, DeviceError) as error:
        fail(error)
    except OSError as error:
        fail(
            f"cannot write: {error.strerror or error} ({error.filename or sink}); run the same command again.", FAILED
        )


def _store(text: str, which: str, example: str) -> tuple[Store, str]:
    from pam_core.errors import PromptError
    from pam_plugins.plugins import store, stores

    kind, _, address = text.partition(":")
    if not address:
        raise PromptError(
            f"Got {text!r} for {which}; wanted KIND:ADDRESS, e.g. {example}. Kinds are {', '.join(stores())}."
        )
    return store(kind), address


def _run(
    source: Source,
    sink: Sink,
    name: str,
    info: ModelInfo,
    device: str,
    options: Options,
    actors: int,
    ray_address: str | None,
) -> None:
    done = regions = failed = resumed = 0
    started = time.monotonic()
    with redirect_stdout(sys.stderr), progress() as shown, ExitStack() as stack:  # Ray tells of dead actors on stdout
        bar = shown.add_task("starting Ray" if actors else "loading the model", total=len(source))
        try:
            steps = stack.enter_context(closing(_steps(source, sink, info, device, options, actors, ray_address)))
            for step in steps:
                shown.update(bar, description="perceiving", advance=1)
                if step.row is None:
                    resumed += 1
                    continue
                _, perception = step.row
                done += perception.error is None
                failed += perception.error is not None
                regions += len(perception.regions)
                if perception.error is not None:
                    err.print(f"[red]failed[/] {plain(perception.error)}", soft_wrap=True, highlight=False)
        except KeyboardInterrupt:
            fail(
                f"stopped: {done + resumed} of {len(source)} pictures are finished; they are in {name}, and the same "
                "command goes on from there.",
                INTERRUPTED,
            )
    seconds = time.monotonic() - started
    parts = [f"{done} pictures, {regions} regions"]
    parts += [f"{resumed} taken over from an earlier run"] if resumed else []
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{seconds:.1f} seconds, {(done + failed) / seconds:.2f} pictures a second", f"rows in {name}"]
    note("; ".join(parts) + ".")
    if failed:
        raise typer.Exit(FAILED)


def _steps(
    source: Source,
    sink: Sink,
    info: ModelInfo,
    device: str,
    options: Options,
    actors: int,
    ray_address: str | None,
) -> Generator[Step]:
    from pam_plugins.datasets import local, ray_runner

    if actors:
        return ray_runner.enrich(source, sink, info, options, actors, device, ray_address)
    return local.enrich(source, sink, load(info, device, False), options)
