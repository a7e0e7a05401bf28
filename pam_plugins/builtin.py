"""What is built in besides models, through the same hooks as any plugin: tasks, a proposer, sources and sinks."""

from __future__ import annotations

from collections.abc import Sequence

from pam_core.contracts import Proposer
from pam_core.tasks import BUILTIN_TASKS
from pam_core.types import Task
from pam_plugins.datasets.coco import CocoSinkFormat, CocoSourceFormat
from pam_plugins.datasets.contracts import SinkFormat, SourceFormat
from pam_plugins.datasets.folder import FolderSourceFormat
from pam_plugins.datasets.jsonl import JsonLinesFormat
from pam_plugins.datasets.parquet import ParquetSinkFormat, ParquetSourceFormat
from pam_plugins.datasets.prompts import PromptsSourceFormat
from pam_plugins.hookspecs import hookimpl
from pam_plugins.proposers import GridProposer
from pam_plugins.render.html_page import HtmlPageFormat
from pam_plugins.render.overlay import OverlayFormat


@hookimpl
def pam_tasks() -> Sequence[Task]:
    return BUILTIN_TASKS


@hookimpl
def pam_proposers() -> Sequence[Proposer]:
    return [GridProposer()]


@hookimpl
def pam_sources() -> Sequence[SourceFormat]:
    return [FolderSourceFormat(), CocoSourceFormat(), ParquetSourceFormat(), PromptsSourceFormat()]


@hookimpl
def pam_sinks() -> Sequence[SinkFormat]:
    return [JsonLinesFormat(), ParquetSinkFormat(), CocoSinkFormat(), OverlayFormat(), HtmlPageFormat()]
