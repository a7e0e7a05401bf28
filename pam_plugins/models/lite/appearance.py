"""How an object looks, as one unit vector: what the encoder's features are under its mask, and its colours.

Two of them are compared by their dot product, which is the mean of a cosine and a Bhattacharyya coefficient.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch

from pam_core.masks import BoolArray
from pam_core.types import Picture

FloatArray = npt.NDArray[np.float32]

BINS = (6, 8, 8)
CHROMA = 48
"""Lightness, a and b are cut into these many bins, a and b between minus and plus CHROMA."""

FINE = 2
"""Pixels to a cell in the picture that motion is measured in."""

_KERNEL = np.array([0.25, 0.5, 0.25])


class View:
    """One frame as it looks to the tracker: features and colours on the grid of cells (H, W)."""

    def __init__(self, picture: Picture, features: torch.Tensor, shape: tuple[int, int]) -> None:
        """`features` (1, C, h, w) of the padded square frame, of which the picture takes `shape` cells."""
        high, wide = shape
        self.shape = shape
        self.fine = cv2.resize(picture, (FINE * wide, FINE * high), interpolation=cv2.INTER_AREA)
        small = cv2.resize(picture, (wide, high), interpolation=cv2.INTER_AREA)
        self.small = cv2.blur(small, (2, 2))
        self.bins = _bins(small)
        self.colours = _histogram(self.bins.ravel())
        grid = features[0].permute(1, 2, 0).float().cpu().numpy()[: -(-high // 4), : -(-wide // 4)]
        # What all of the picture has in common tells no object from another.
        grid = grid - grid.mean(axis=(0, 1))
        self.features: FloatArray = grid / np.maximum(np.linalg.norm(grid, axis=2, keepdims=True), 1e-6)

    def look(self, mask: BoolArray) -> FloatArray:
        """The unit vector of what is under a mask of cells, at least one of them set."""
        weight = cv2.resize(mask.astype(np.float32), self.features.shape[1::-1], interpolation=cv2.INTER_AREA)
        pooled = unit((self.features * weight[..., None]).sum(axis=(0, 1)))
        return unit(np.concatenate([pooled, np.sqrt(_histogram(self.bins[mask]))]))

    def likeness(self, look: FloatArray) -> FloatArray:
        """How much each cell (H, W) looks as if it were of the object that looks so, in [0, 1]."""
        channels = self.features.shape[2]
        similar = np.clip(self.features @ unit(look[:channels]), 0, 1).astype(np.float32)
        similar = cv2.resize(similar, self.shape[::-1], interpolation=cv2.INTER_LINEAR)
        colours = 2 * look[channels:] ** 2  # undoes what `look` did to the histogram
        share = colours / np.maximum(colours + self.colours, 1e-9)
        alike: FloatArray = similar * share[self.bins]
        return alike


def unit(vector: FloatArray) -> FloatArray:
    """The vector at length 1; zeros stay zeros."""
    scaled: FloatArray = (vector / max(float(np.linalg.norm(vector)), 1e-6)).astype(np.float32)
    return scaled


def colours(picture: Picture) -> FloatArray:
    """How often which colours are in a picture, as a unit vector (384,)."""
    return unit(np.sqrt(_histogram(_bins(np.ascontiguousarray(picture)).ravel())))


def _bins(picture: Picture) -> npt.NDArray[np.int64]:
    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB).astype(np.int64)
    light = lab[..., 0] * BINS[0] // 256
    a, b = (np.clip(lab[..., i] - 128 + CHROMA, 0, 2 * CHROMA - 1) * BINS[i] // (2 * CHROMA) for i in (1, 2))
    return (light * BINS[1] + a) * BINS[2] + b


def _histogram(bins: npt.NDArray[np.int64]) -> FloatArray:
    """Shares of the bins, blurred, so that a change of light moves little."""
    counts = np.bincount(bins, minlength=int(np.prod(BINS))).reshape(BINS).astype(np.float64)
    for axis in range(3):
        padded = np.pad(counts, [(1, 1) if i == axis else (0, 0) for i in range(3)], mode="edge")
        counts = np.sum(
            [weight * np.take(padded, range(i, i + BINS[axis]), axis=axis) for i, weight in enumerate(_KERNEL)],
            axis=0,
        )
    return (counts.ravel() / max(counts.sum(), 1e-9)).astype(np.float32)
