"""The loop of `pam perceive` and `pam enrich`: sinks, progress, failures, Ctrl-C, and the summary."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, redirect_stdout
from dataclasses import dataclass

import typer

from pam_core.contracts import ModelInfo
from pam_core.types import Perception
from pam_plugins import pipeline, plugins
from pam_plugins.cli.arguments import load
from pam_plugins.cli.console import FAILED, INTERRUPTED, err, fail, note, plain, progress
from pam_plugins.datasets import ray_runner
from pam_plugins.datasets.contracts import Job, ResumableSink, Sink, Source
from pam_plugins.options import Options


@dataclass
class Counts:
    """Pictures and regions so far; `finished` includes the `resumed` ones."""

    finished: int = 0
    regions: int = 0
    resumed: int = 0
    failed: int = 0
    seconds: float = 0.0

    def report(self, *more: str) -> None:
        """Print the summary. Ends the command where pictures failed."""
        parts = [f"{self.finished} pictures, {self.regions} regions"]
        parts += [f"{self.resumed} taken over from an earlier run"] if self.resumed else []
        parts += [f"{self.failed} failed"] if self.failed else []
        note("; ".join([*parts, *more]) + ".")
        if self.failed:
            raise typer.Exit(FAILED)

    @property
    def rate(self) -> float:
        """New pictures a second."""
        return (self.finished - self.resumed + self.failed) / max(self.seconds, 1e-9)


def run(
    source: Source | Sequence[Job],
    sinks: Sequence[Callable[[], Sink]],
    place: object,
    info: ModelInfo,
    options: Options,
    *,
    device: str,
    compile: bool = False,
    actors: int = 0,
    ray_address: str | None = None,
    show: Callable[[Perception], object] = lambda perception: None,
) -> Counts:
    """Open the sinks and run every job through the model, in this process or on Ray.

    `place` is what the user calls the first sink; `show` is given each perception. Raises PamError.
    """
    options.tasks_for(info)
    plugins.proposer(options.proposer)
    for step in options.postprocess:
        plugins.postprocessor(step)
    counts, started = Counts(), time.monotonic()
    with ExitStack() as stack:
        opened = [stack.enter_context(closing(sink())) for sink in sinks]
        stack.enter_context(redirect_stdout(sys.stderr))  # Ray tells of dead actors on stdout
        shown = stack.enter_context(progress())
        bar = shown.add_task("starting Ray" if actors else "loading the model", total=len(source))
        try:
            if actors:
                results = ray_runner.run(source, opened, info, options, actors, device, ray_address)
            else:
                results = pipeline.run(source, opened, load(info, device, compile), options)
            for result in stack.enter_context(closing(results)):
                perception = result.perception
                counts.finished += perception.error is None
                counts.failed += perception.error is not None
                counts.resumed += result.resumed
                counts.regions += len(perception.regions)
                if perception.error is not None:
                    err.print(f"[red]failed[/] {plain(perception.error)}", soft_wrap=True, highlight=False)
                show(perception)
                shown.update(bar, description="perceiving", advance=1)
        except KeyboardInterrupt:
            resumable = bool(opened) and isinstance(opened[0], ResumableSink)
            kept = f"; they are in {place}, and the same command goes on from there" if resumable else ""
            fail(f"stopped: {counts.finished} of {len(source)} pictures are finished{kept}.", INTERRUPTED)
    counts.seconds = time.monotonic() - started
    return counts
