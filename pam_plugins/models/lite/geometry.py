"""Boxes xyxy and boolean masks (H, W) on one grid."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pam_core.masks import BoolArray, Box


def centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def shifted_box(box: Box, shift: npt.NDArray[np.float64]) -> Box:
    x, y = (float(value) for value in shift)
    return (box[0] + x, box[1] + y, box[2] + x, box[3] + y)


def widened_box(box: Box, margin: float) -> Box:
    """A box with a margin on each side, as a share of its width and height."""
    x, y = margin * (box[2] - box[0]), margin * (box[3] - box[1])
    return (box[0] - x, box[1] - y, box[2] + x, box[3] + y)


def tight_box(mask: BoolArray) -> Box:
    """The box around the set cells, of which there is at least one."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return (float(x), float(y), float(x + width), float(y + height))


def box_mask(box: Box, shape: tuple[int, ...]) -> BoolArray:
    """The cells of a box, at least one of those in the picture, as a mask (H, W)."""
    mask = np.zeros(shape, bool)
    x1, y1, x2, y2 = (max(0, round(value)) for value in box)
    mask[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)] = True
    return mask


def mask_iou(a: BoolArray, b: BoolArray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def deepest_cell(mask: BoolArray) -> tuple[float, float]:
    """The cell farthest from the edge of a mask (x, y)."""
    padded = np.pad(mask.view(np.uint8), 1)
    y, x = np.unravel_index(int(cv2.distanceTransform(padded, cv2.DIST_L2, 3).argmax()), padded.shape)
    return float(x - 1), float(y - 1)


def shifted_mask(mask: BoolArray, shift: npt.NDArray[np.float64]) -> BoolArray:
    """A mask moved by some cells (x, y)."""
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float64)
    moved: BoolArray = cv2.warpAffine(mask.astype(np.float32), matrix, mask.shape[::-1]) > 0.5
    return moved
