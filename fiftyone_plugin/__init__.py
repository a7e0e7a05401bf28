"""The door to FiftyOne: operators, a panel and a zoo model that mask, label, explain and caption regions.

FiftyOne imports this file from its plugins folder and calls `register`; everything else is imported as the package
`fiftyone_plugin`, so that there is one copy of the code (`pam fiftyone install` makes the link and checks it).
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fiftyone.plugins.context import PluginContext


def register(plugin: PluginContext) -> None:
    """Called by FiftyOne."""
    _make_importable()
    from fiftyone_plugin.operators.feedback import ExportFeedback
    from fiftyone_plugin.operators.perceive import CaptionRegions, PerceiveRegions
    from fiftyone_plugin.operators.track import TrackAndCaption
    from fiftyone_plugin.panel import RegionsPanel

    for operator in (PerceiveRegions, CaptionRegions, TrackAndCaption, ExportFeedback, RegionsPanel):
        plugin.register(operator)


def _make_importable() -> None:
    """Where a checkout is linked that is not installed, its packages are beside the folder the link leads to."""
    root = Path(__file__).resolve().parents[1]
    for package, place in (("fiftyone_plugin", root), ("pam_core", root / "core")):
        if find_spec(package) is None:
            sys.path.append(str(place))
