"""What is built in besides models, through the same hooks as any plugin: tasks, a proposer, sources and sinks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pam_core.tasks import BUILTIN_TASKS
from pam_core.types import Task
from pam_plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from pam_core.contracts import Proposer
    from pam_plugins.datasets.contracts import SinkFormat, SourceFormat


@hookimpl
def pam_tasks() -> Sequence[Task]:
    return BUILTIN_TASKS


@hookimpl
def pam_proposers() -> Sequence[Proposer]:
    from pam_plugins.proposers import GridProposer

    return [GridProposer()]


@hookimpl
def pam_sources() -> Sequence[SourceFormat]:
    from pam_plugins.datasets.coco import CocoSourceFormat
    from pam_plugins.datasets.folder import FolderSourceFormat
    from pam_plugins.datasets.parquet import ParquetSourceFormat

    return [FolderSourceFormat(), CocoSourceFormat(), ParquetSourceFormat()]


@hookimpl
def pam_sinks() -> Sequence[SinkFormat]:
    from pam_plugins.datasets.coco import CocoSinkFormat
    from pam_plugins.datasets.jsonl import JsonLinesFormat
    from pam_plugins.datasets.parquet import ParquetSinkFormat
    from pam_plugins.render.html_page import HtmlPageFormat
    from pam_plugins.render.overlay import OverlayFormat

    return [JsonLinesFormat(), ParquetSinkFormat(), CocoSinkFormat(), OverlayFormat(), HtmlPageFormat()]
