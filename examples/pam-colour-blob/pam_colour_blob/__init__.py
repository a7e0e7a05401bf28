"""An example plugin. This module holds the hooks; the entry point in pyproject.toml names it.

The hooks only list things. What is slow to import is imported by the hook that needs it, so that `pam --help` stays
quick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pam_colour_blob.info import INFO
from pam_core.types import Task
from pam_plugins import hookimpl

if TYPE_CHECKING:
    from pam_core.contracts import ModelInfo, PostProcessor, RegionModel
    from pam_plugins.datasets.contracts import SinkFormat

MEAN_COLOUR = Task(
    "mean-colour",
    "Its mean colour, as a hex code and a name",
    {
        "en": "What is the mean colour of this subject? Answer with a hex code and a name.",
        "zh": "该目标对象的平均颜色是什么？请用十六进制代码和名称回答。",
    },
)


@hookimpl
def pam_models() -> Sequence[ModelInfo]:
    return [replace(INFO, load=_load)]


def _load(device: str, compile: bool) -> RegionModel:
    from pam_colour_blob.model import ColourBlob

    return ColourBlob()


@hookimpl
def pam_tasks() -> Sequence[Task]:
    return [MEAN_COLOUR]


@hookimpl
def pam_postprocessors() -> Sequence[PostProcessor]:
    from pam_colour_blob.specks import NoSpecks

    return [NoSpecks()]


@hookimpl
def pam_sinks() -> Sequence[SinkFormat]:
    from pam_colour_blob.table import CsvFormat

    return [CsvFormat()]
