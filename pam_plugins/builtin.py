"""What is built in besides models, through the same hooks as any plugin: tasks, a proposer, exporters, stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pam_core.tasks import BUILTIN_TASKS
from pam_core.types import Task
from pam_plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from pam_core.contracts import Exporter, Proposer
    from pam_plugins.datasets.contracts import Store


@hookimpl
def pam_tasks() -> Sequence[Task]:
    return BUILTIN_TASKS


@hookimpl
def pam_proposers() -> Sequence[Proposer]:
    from pam_plugins.proposers import GridProposer

    return [GridProposer()]


@hookimpl
def pam_exporters() -> Sequence[Exporter]:
    from pam_plugins.datasets.coco_export import CocoExporter
    from pam_plugins.render.html_page import PageExporter
    from pam_plugins.render.overlay import OverlayExporter

    return [OverlayExporter(), PageExporter(), CocoExporter()]


@hookimpl
def pam_stores() -> Sequence[Store]:
    from pam_plugins.datasets.coco import CocoStore
    from pam_plugins.datasets.folder import FolderStore
    from pam_plugins.datasets.parquet import ParquetStore

    return [FolderStore(), CocoStore(), ParquetStore()]
