"""What the door to FiftyOne adds to `pam`. Imports no FiftyOne: it is loaded by every `pam` command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pam_plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import typer

    from pam_plugins.datasets.contracts import Sink, Source, Store


class FiftyOneStore:
    """The datasets of this machine's FiftyOne, which is connected to when one of them is opened."""

    name = "fiftyone"
    description = "a FiftyOne dataset: DATASET/FIELD or DATASET@SAVED_VIEW/FIELD"

    def source(self, address: str) -> Source:
        from fiftyone_plugin.store import open_source

        return open_source(address)

    def sink(self, address: str) -> Sink:
        from fiftyone_plugin.store import open_sink

        return open_sink(address)


@hookimpl
def pam_stores() -> Sequence[Store]:
    return [FiftyOneStore()]


@hookimpl
def pam_commands(app: typer.Typer) -> None:
    import typer

    from fiftyone_plugin.install import command

    group = typer.Typer(no_args_is_help=True)
    group.command("install")(command)
    app.add_typer(group, name="fiftyone", help="The plugin for the FiftyOne App.")
