"""The hooks of the pluggy project `pam`. docs/hooks.md describes each with an example.

Hooks register things and announce events. They are never called per frame: the objects they return do the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import typer

    from pam_core.contracts import Exporter, ModelInfo, PostProcessor, Proposer, RegionModel
    from pam_core.types import Feedback, Perception, Task
    from pam_plugins.datasets.contracts import Store

hookspec = pluggy.HookspecMarker("pam")
hookimpl = pluggy.HookimplMarker("pam")


@hookspec
def pam_models() -> Sequence[ModelInfo]:  # type: ignore[empty-body]
    """The models this plugin knows, the ones that cannot be loaded here included (with `missing` set)."""


@hookspec(firstresult=True)
def pam_load_model(name: str, device: str, compile: bool) -> RegionModel | None:
    """Load the model `name` on `device` ("auto", "cpu", "cuda", "mps"), compiled where `compile` asks for it and the
    model can be, or None where it is not this plugin's.
    """


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
def pam_exporters() -> Sequence[Exporter]:  # type: ignore[empty-body]
    """Formats a run can be saved in."""


@hookspec
def pam_stores() -> Sequence[Store]:  # type: ignore[empty-body]
    """Kinds of place that `pam enrich` can read pictures from or write rows to."""


@hookspec
def pam_perceived(perception: Perception) -> None:
    """Called after each picture was perceived and post-processed, failed pictures included."""


@hookspec
def pam_feedback(feedback: Feedback) -> None:
    """Called when a person accepted, edited or rejected a region in one of the hosts."""


@hookspec
def pam_commands(app: typer.Typer) -> None:
    """Add commands to the command line `pam`."""
