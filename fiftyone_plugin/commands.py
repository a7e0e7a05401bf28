"""What the door to FiftyOne adds to `pam`. Imports no FiftyOne: it is loaded by every `pam` command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pam_plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import typer

    from pam_plugins.enrich.stores import Store


@hookimpl
def pam_stores() -> Sequence[Store]:
    from fiftyone_plugin.stores import FiftyOneStore

    return [FiftyOneStore()]


@hookimpl
def pam_commands(app: typer.Typer) -> None:
    import typer

    from fiftyone_plugin.install import command

    group = typer.Typer(no_args_is_help=True)
    group.command("install")(command)
    app.add_typer(group, name="fiftyone", help="The plugin for the FiftyOne App.")
