"""The door's hooks: a source, a sink and a command of `pam`. Imports no FiftyOne: every `pam` command loads this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pam_core.errors import needs_extra
from pam_plugins.datasets.contracts import Sink, SinkFormat, Source, SourceFormat
from pam_plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    import typer


class FiftyOneSourceFormat:
    """Pictures, and labels as prompts, of a dataset of this machine's FiftyOne."""

    name = "fiftyone"
    description = "a FiftyOne dataset: DATASET/FIELD or DATASET@SAVED_VIEW/FIELD, FIELD with labels as prompts"

    def open(self, address: str) -> Source:
        """Connect to FiftyOne's database and open the dataset. Raises FiftyOneError and MissingExtraError."""
        with needs_extra("fiftyone", "A FiftyOne dataset"):
            from fiftyone_plugin.addresses import open_source

        return open_source(address)


class FiftyOneSinkFormat:
    """A field of labels in a dataset of this machine's FiftyOne."""

    name = "fiftyone"
    description = "a field of a FiftyOne dataset: DATASET/FIELD"

    def open(self, address: str) -> Sink:
        """Connect to FiftyOne's database and open, or make, the field. Raises FiftyOneError and MissingExtraError."""
        with needs_extra("fiftyone", "A FiftyOne dataset"):
            from fiftyone_plugin.addresses import open_sink

        return open_sink(address)


@hookimpl
def pam_sources() -> Sequence[SourceFormat]:
    return [FiftyOneSourceFormat()]


@hookimpl
def pam_sinks() -> Sequence[SinkFormat]:
    return [FiftyOneSinkFormat()]


@hookimpl
def pam_commands(app: typer.Typer) -> None:
    import typer

    from fiftyone_plugin.install import command

    group = typer.Typer(no_args_is_help=True)
    group.command("install")(command)
    app.add_typer(group, name="fiftyone", help="The plugin for the FiftyOne App.")
