"""The command line `pam`: thin commands over the Python interface, plus those that plugins add."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

import typer

from pam_core.allocator import keep_freed_memory
from pam_core.errors import PamError
from pam_plugins.cli import enrich, inspect, perceive, video
from pam_plugins.cli.console import say
from pam_plugins.plugins import announce
from pam_plugins.version import VERSION

__all__ = ["app", "main"]

app = typer.Typer(
    name="pam",
    help="Click, box or mask anything in a picture or a video and get its mask, label, explanation and caption.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pam-plugins {VERSION}")
        raise typer.Exit()


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


app.command("perceive")(perceive.command)
app.command("enrich")(enrich.command)
app.command("video")(video.command)
app.command("models")(inspect.models)
app.command("plugins")(inspect.plugins)
app.command("doctor")(inspect.doctor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the script `pam`. Errors of the project end it with a sentence, and with their exit code."""
    for stream in (sys.stdout, sys.stderr):  # characters that a terminal lacks are escaped
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    keep_freed_memory()
    announce("pam_commands", app=app)
    try:
        app(arguments)
    except PamError as error:
        say(error)
        sys.exit(error.exit_code)
