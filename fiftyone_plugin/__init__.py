"""The door to FiftyOne: operators, a panel and a zoo model that mask, label, explain and caption regions.

FiftyOne imports this file from its plugins folder and calls `register`; everything else is imported as the package
`fiftyone_plugin`, so that there is one copy of the code (`pam fiftyone install` makes the link and checks it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fiftyone.plugins.context import PluginContext


def register(plugin: PluginContext) -> None:
    """Called by FiftyOne."""
    from fiftyone_plugin.operators.feedback import ExportFeedback
    from fiftyone_plugin.operators.perceive import CaptionRegions, PerceiveRegions
    from fiftyone_plugin.panel import RegionsPanel

    for operator in (PerceiveRegions, CaptionRegions, ExportFeedback, RegionsPanel):
        plugin.register(operator)
