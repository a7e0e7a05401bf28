"""The built-in exporters: a drawn-over picture each, one web page for a whole run, and COCO annotations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pam_plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from pam_core.contracts import Exporter


@hookimpl
def pam_exporters() -> Sequence[Exporter]:
    from pam_plugins.builtin.exporters.coco import CocoExporter
    from pam_plugins.builtin.exporters.overlay import OverlayExporter
    from pam_plugins.builtin.exporters.page import PageExporter

    return [OverlayExporter(), PageExporter(), CocoExporter()]
