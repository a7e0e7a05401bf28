"""The built-in way to find regions without a prompt."""

from __future__ import annotations

from collections.abc import Sequence

from pam_core.contracts import Proposer
from pam_plugins.hookspecs import hookimpl


@hookimpl
def pam_proposers() -> Sequence[Proposer]:
    from pam_core.inference.everything import GridProposer

    return [GridProposer()]
