"""A linear classifier for "stuff" (sky, grass, wall ...), which ImageNet and COCO have no classes for.

Its input are EfficientNet-Lite2's pooled features of two crops, the usual one around the region (context) and the
largest square inside it (texture), and 16 measurements of mask and colour.  Trained by ``tools/train_lite_stuff.py``
on points annotated by hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pam_plugins.models.lite.networks.efficientnet import NUM_FEATURES

MIN_SIDE = 16
"""The square inside a region is at least this many pixels wide, even where the region is thinner."""

_SHAPE_SIDE = 256
_COLOUR_SAMPLES = 4096


@dataclass(frozen=True)
class StuffClass:
    """One class of the head: its name and its WordNet 3.0 synset, None for "other"."""

    name: str
    synset: str | None


CLASSES = (
    StuffClass("other", None),
    StuffClass("building", "n02913152"),
    StuffClass("floor", "n03365592"),
    StuffClass("flower", "n11669921"),
    StuffClass("grass", "n12102133"),
    StuffClass("ground", "n09334396"),
    StuffClass("mountain", "n09359803"),
    StuffClass("plant", "n00017222"),
    StuffClass("road", "n04096066"),
    StuffClass("rock", "n09416076"),
    StuffClass("sky", "n09436708"),
    StuffClass("tree", "n13104059"),
    StuffClass("wall", "n04546855"),
    StuffClass("water", "n14845743"),
)
"""In the order of the head's outputs. "other", the first, is everything that is not stuff."""

NUM_MEASUREMENTS = 16


class StuffHead(nn.Module):
    """Two pooled feature vectors and the measurements of each region -> calibrated probabilities of `CLASSES`."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * NUM_FEATURES + NUM_MEASUREMENTS, len(CLASSES))

    def forward(self, around: Tensor, inside: Tensor, measurements: Tensor) -> Tensor:
        """Class probabilities of regions.

        Args:
            around: (N, 1280) ``EfficientNetLite2.pooled_features`` of the crops around the regions' boxes, with the
                margin that the classifier's crops have.
            inside: (N, 1280) the same of the squares from `inner_square`, cut without a margin.
            measurements: (N, 16) from `measure`.

        Returns:
            (N, len(CLASSES)).
        """
        return self.linear(torch.cat([around, inside, measurements], dim=1)).softmax(dim=-1)


def inner_square(mask: npt.NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """The largest square (xyxy, pixels) inside a mask (H, W) that is not empty; at least `MIN_SIDE` wide.

    Found in a mask shrunk to 256 pixels, so that it takes no longer in large pictures.
    """
    left, top, right, bottom = _box(mask)
    part = mask[top:bottom, left:right].view(np.uint8)
    scale = min(1.0, _SHAPE_SIDE / max(part.shape))
    size = max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale))
    small = cv2.resize(part * 255, size, interpolation=cv2.INTER_AREA)
    inside = (small >= min(128, small.max())).view(np.uint8)  # What is thinner than a pixel must not vanish.
    distance = cv2.distanceTransform(np.pad(inside, 1), cv2.DIST_C, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    side = max(float(MIN_SIDE), (2 * float(distance[y, x]) - 1) / scale)
    centre_x, centre_y = left + (int(x) + 0.5) / scale, top + (int(y) + 0.5) / scale
    return centre_x - side / 2, centre_y - side / 2, centre_x + side / 2, centre_y + side / 2


def measure(picture: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Where a region lies, how large it is and what colour, (16,), each number roughly between 0 and 1.

    Args:
        picture: (H, W, 3) RGB.
        mask: (H, W), not empty.
    """
    height, width = mask.shape
    left, top, right, bottom = _box(mask)
    part = mask[top:bottom, left:right]
    rows = part.sum(axis=1)
    area = float(rows.sum())
    centre_y = (top + float((rows * np.arange(len(rows))).sum()) / area) / height
    x1, _, x2, _ = inner_square(mask)
    place = [
        centre_y,
        area / (height * width),
        (right - left) / width,
        (bottom - top) / height,
        area / part.size,
        (x2 - x1) / np.sqrt(area),
        float(mask[0].mean()),
        float(mask[-1].mean()),
        float(mask[:, 0].mean()),
        float(mask[:, -1].mean()),
    ]
    pixels = picture[top:bottom, left:right][part]
    pixels = np.ascontiguousarray(pixels[:: -(-len(pixels) // _COLOUR_SAMPLES)])
    lab = cv2.cvtColor(pixels[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0] / 100
    return np.concatenate([place, lab.mean(axis=0), lab.std(axis=0)]).astype(np.float32)


def _box(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The tight box (left, top, right, bottom) of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
