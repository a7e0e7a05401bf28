"""The hooks of the pluggy project `pam`. docs/hooks.md describes each with an example.

Hooks register things and announce events. They are never called per frame: the objects they return do the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import typer

    from pam_core.contracts import ModelInfo, PostProcessor, Proposer
    from pam_core.types import Feedback, Perception, Task
    from pam_plugins.datasets.contracts import SinkFormat, SourceFormat

hookspec = pluggy.HookspecMarker("pam")
hookimpl = pluggy.HookimplMarker("pam")


@hookspec
def pam_models() -> Sequence[ModelInfo]:  # type: ignore[empty-body]
    """The models this plugin knows, each with its loader; those that cannot be loaded here have `missing` set."""


@hookspec
def pam_tasks() -> Sequence[Task]:  # type: ignore[empty-body]
    """Tasks beyond the built-in ones: their names and the questions that ask for them."""


@hookspec
def pam_proposers() -> Sequence[Proposer]:  # type: ignore[empty-body]
    """Ways to find regions without a prompt."""


@hookspec
def pam_postprocessors() -> Sequence[PostProcessor]:  # type: ignore[empty-body]
    """Steps that may change a perception before anyone sees it. Each runs only where the user names it."""


@hookspec
def pam_sources() -> Sequence[SourceFormat]:  # type: ignore[empty-body]
    """Kinds of data set that pictures and prompts can be read from."""


@hookspec
def pam_sinks() -> Sequence[SinkFormat]:  # type: ignore[empty-body]
    """Formats and data sets that results can be written to."""


@hookspec
def pam_perceived(perception: Perception) -> None:
    """Called after each picture was perceived and post-processed, failed pictures included."""


@hookspec
def pam_feedback(feedback: Feedback) -> None:
    """Called when a person accepted, edited or rejected a region in one of the hosts."""


@hookspec
def pam_commands(app: typer.Typer) -> None:
    """Add commands to the command line `pam`."""
