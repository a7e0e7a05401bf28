"""The built-in plugin `pam`: the Perceive Anything Model, from a folder or as `pam download` fetched it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pam_core.contracts import ModelInfo
from pam_plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def pam_models() -> list[ModelInfo]:
    from pam_plugins.models.pam.info import infos

    return infos()


@hookimpl
def pam_commands(app: typer.Typer) -> None:
    from pam_plugins.models.pam import commands

    app.command("download")(commands.download)
    app.command("convert")(commands.convert)
    app.command("parity")(commands.parity)
