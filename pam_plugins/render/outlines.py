"""From masks to SVG paths: what a page needs to show a mask and to know when the pointer is on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pam_core.masks import Mask

OVERSAMPLING = 2
"""Contours run through pixel centres; traced at twice the displayed size they are off by a quarter pixel."""

TOLERANCE = 0.5
"""How far, in displayed pixels, a simplified outline may stray."""


@dataclass(frozen=True)
class Outline:
    """A mask as an SVG path (even-odd, so holes stay open) and its innermost point, in displayed pixels."""

    path: str
    x: float
    y: float


def outline(mask: Mask, width: int, height: int) -> Outline | None:
    """The outline of `mask` in a picture displayed at `width` x `height`; None where the mask is empty."""
    import cv2

    x1, y1, x2, y2 = (int(side) for side in mask.box)
    if x2 <= x1 or y2 <= y1:
        return None
    scale_x, scale_y = width / mask.width * OVERSAMPLING, height / mask.height * OVERSAMPLING
    crop = mask.array[y1:y2, x1:x2].view(np.uint8)
    size = (max(1, round((x2 - x1) * scale_x)), max(1, round((y2 - y1) * scale_y)))
    if size[0] >= crop.shape[1] and size[1] >= crop.shape[0]:
        scaled = cv2.resize(crop, size, interpolation=cv2.INTER_NEAREST)
    else:
        cover = cv2.resize(crop * np.uint8(255), size, interpolation=cv2.INTER_AREA)
        scaled = (cover > 127).astype(np.uint8)
        if not scaled.any():  # thinner than a displayed pixel everywhere: better too fat than invisible
            scaled = (cover > 0).astype(np.uint8)
    scaled = cv2.copyMakeBorder(scaled, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    step_x, step_y = (x2 - x1) / size[0], (y2 - y1) / size[1]

    def place(points: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Cells of the scaled crop (with its border of one) as displayed pixels."""
        original = (points.astype(np.float64) - 0.5) * (step_x, step_y) + (x1, y1)
        placed: npt.NDArray[np.float64] = original * (width / mask.width, height / mask.height)
        return placed

    contours, _ = cv2.findContours(scaled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    parts = [_loop(cv2.approxPolyDP(contour, TOLERANCE * OVERSAMPLING, True), place) for contour in contours]
    depth = cv2.distanceTransform(scaled, cv2.DIST_L2, 3)
    innermost = np.array([np.unravel_index(int(depth.argmax()), depth.shape)[::-1]])
    x, y = place(innermost)[0]
    return Outline("".join(parts), round(float(x), 1), round(float(y), 1))


def _loop(contour: npt.NDArray[Any], place: Any) -> str:
    points = contour.reshape(-1, 2)
    if len(points) < 3:  # one pixel, or a line of them: give it a body that can be seen and pointed at
        low, high = points.min(axis=0), points.max(axis=0)
        corners = [low - 0.5, (high[0] + 0.5, low[1] - 0.5), high + 0.5, (low[0] - 0.5, high[1] + 0.5)]
        points = np.array(corners, dtype=np.float64)
    return "M" + " ".join(f"{x:.1f},{y:.1f}" for x, y in place(points)) + "Z"
