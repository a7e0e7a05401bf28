"""The colours of regions, one set for every sink, so that a region has the same colour wherever it is drawn.

All are light enough to carry the dark ink at a contrast above 4.5:1, and bright enough for photos.
"""

from __future__ import annotations

from pam_core.types import Region

COLOURS = (
    "#4c9aff",
    "#ffb020",
    "#2cc295",
    "#ff7f7f",
    "#b38bff",
    "#f279c0",
    "#22c7e0",
    "#a3d93b",
    "#ff8f45",
    "#8f9dff",
    "#e5d23a",
    "#d99a6c",
)
INK = "#14161a"
"""Text on any of the colours."""

FOREGROUND = "#2bd14b"
BACKGROUND = "#f03e3e"
"""Dots at foreground and background points."""


def colour_of(region: Region, index: int) -> str:
    """The colour of the `index`-th region of its picture; one track keeps one colour from frame to frame."""
    number = index if region.track_id is None else region.track_id
    return COLOURS[number % len(COLOURS)]
