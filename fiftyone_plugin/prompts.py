"""FiftyOne labels as prompts: boxes, masks, outlines and keypoints, in pixels of the upright picture."""

from __future__ import annotations

import math
from collections.abc import Collection

import fiftyone as fo

from fiftyone_plugin.labels import Label, mask_of, pixel_box
from pam_core.types import Prompt

PROMPT_TYPES = (fo.Detections, fo.Keypoints, fo.Polylines)


def labels_in(value: fo.Label | None, ids: Collection[str] | None = None) -> list[Label]:
    """The labels in a Detections, Keypoints or Polylines value; of these only the ones with `ids`, if given."""
    labels = value[value._LABEL_LIST_FIELD] if value is not None else []
    return [label for label in labels if ids is None or label.id in ids]


def prompt_of(label: Label, width: int, height: int) -> Prompt:
    """What a label points at: its mask and box, its clicks or its outline. Raises PromptError.

    The points of a Keypoint are clicks on one thing; missing ones (NaN) are left out. An open Polyline is a click on
    each of its vertices.
    """
    if isinstance(label, fo.Keypoint):
        return Prompt(points=_clicks(label.points, width, height))
    if isinstance(label, fo.Polyline):
        mask = mask_of(label, width, height)
        if mask is not None and mask.area:
            return Prompt(mask=mask)
        return Prompt(points=_clicks([point for ring in label.points for point in ring], width, height))
    mask = mask_of(label, width, height)
    return Prompt(box=pixel_box(label, width, height), mask=mask if mask is not None and mask.area else None)


def _clicks(points: Collection[tuple[float, float]], width: int, height: int) -> tuple[tuple[float, float], ...]:
    """Relative points in pixels; one on the right or lower edge is on the last pixel."""
    return tuple(
        (
            min(x * width, width - 0.5) if x <= 1 else x * width,
            min(y * height, height - 0.5) if y <= 1 else y * height,
        )
        for x, y in points
        if not (math.isnan(x) or math.isnan(y))
    )
