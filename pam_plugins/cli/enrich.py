"""`pam enrich`: a data set through a model into another, in this process or in many."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TypeVar

import typer

from pam_core.errors import NotFoundError, PromptError
from pam_plugins import plugins
from pam_plugins.cli import run_loop
from pam_plugins.cli.arguments import choose, languages
from pam_plugins.datasets.contracts import SinkFormat, SourceFormat
from pam_plugins.options import DEFAULT_PROPOSER, Options

Format = TypeVar("Format", SourceFormat, SinkFormat)


def command(
    source: str = typer.Argument(
        help="Where the pictures are, KIND:ADDRESS: folder:photos, coco:instances.json, parquet:table.parquet.",
        show_default=False,
    ),
    sink: str = typer.Argument(
        help="Where the results go, KIND:ADDRESS: parquet:out, jsonl:out.jsonl.", show_default=False
    ),
    model: str = typer.Option("auto", help="A name from `pam models`; auto takes the best that is ready."),
    device: str = typer.Option("auto", help="cpu, cuda, mps or auto."),
    task: list[str] = typer.Option([], help="label, explanation, brief, detailed, text; all but text if left out."),
    lang: str = typer.Option("en", help="Languages of the answers, e.g. en,zh."),
    proposer: str = typer.Option(DEFAULT_PROPOSER, help="How to find everything (`pam plugins`)."),
    postprocess: list[str] = typer.Option([], help="A post-processor to run on the results (`pam plugins`)."),
    actors: int = typer.Option(0, min=0, help="So many processes on Ray, with a GPU or core each; 0 is this one."),
    ray_address: str = typer.Option(None, help="A Ray cluster that runs already; with --actors."),
) -> None:
    """Run a data set through a model and write the results; run again, it goes on where it stopped."""
    if ray_address is not None and not actors:
        raise PromptError("Got --ray-address without --actors; wanted how many actors to use there.")
    options = Options(tuple(task) or None, languages(lang), proposer, tuple(postprocess))
    source_format, source_address = _format(plugins.sources(), source, "SOURCE", "folder:photos")
    sink_format, sink_address = _format(plugins.sinks(), sink, "SINK", "parquet:out")
    if source == sink:
        raise PromptError(f"Got {source} for SOURCE and for SINK; wanted different places.")
    info = choose(model)
    options.tasks_for(info)
    counts = run_loop.run(
        source_format.open(source_address),
        [partial(sink_format.open, sink_address)],
        sink,
        info,
        options,
        device=device,
        actors=actors,
        ray_address=ray_address,
    )
    counts.report(f"{counts.seconds:.1f} seconds, {counts.rate:.2f} pictures a second", f"results in {sink}")


def _format(formats: Mapping[str, Format], text: str, which: str, example: str) -> tuple[Format, str]:
    """The format and the address in KIND:ADDRESS. Raises PromptError and NotFoundError."""
    kind, _, address = text.partition(":")
    if not address:
        raise PromptError(
            f"Got {text!r} for {which}; wanted KIND:ADDRESS, e.g. {example}. Kinds are {', '.join(formats)}."
        )
    if kind not in formats:
        raise NotFoundError(f"No kind of {which.lower()} is called {kind!r}; there is {', '.join(formats)}.")
    return formats[kind], address
