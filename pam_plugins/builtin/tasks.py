"""The built-in tasks, registered through the same hook as anyone else's."""

from __future__ import annotations

from collections.abc import Sequence

from pam_core.tasks import BUILTIN_TASKS
from pam_core.types import Task
from pam_plugins.hookspecs import hookimpl


@hookimpl
def pam_tasks() -> Sequence[Task]:
    return BUILTIN_TASKS
