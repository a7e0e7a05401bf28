"""Appearance embeddings: one unit vector of an object, made of the encoder's features under its mask and its colours.

Two of them are compared by their dot product, which is the mean of a cosine and a Bhattacharyya coefficient.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch

from pam_core.contracts import Picture
from pam_core.masks import BoolArray, Box

FloatArray = npt.NDArray[np.float32]

BINS = (6, 8, 8)
CHROMA = 48
"""Histogram bins of lightness, a and b (CIELAB), the last two between minus and plus CHROMA."""

FINE = 2
"""Pixels to a cell in the picture in which motion is measured."""

_KERNEL = np.array([0.25, 0.5, 0.25])


class FrameAppearance:
    """Features and colours of one frame on the grid of cells (H, W)."""

    def __init__(self, picture: Picture, features: torch.Tensor, shape: tuple[int, int]) -> None:
        """`features` (1, C, h, w) of the padded square frame, of which the picture takes `shape` cells."""
        high, wide = shape
        self.shape = shape
        self.pixels = cv2.resize(picture, (FINE * wide, FINE * high), interpolation=cv2.INTER_AREA)
        self.bins = _bins(cv2.resize(picture, (wide, high), interpolation=cv2.INTER_AREA))
        self.colours = _histogram(self.bins.ravel())
        grid = features[0].permute(1, 2, 0).float().cpu().numpy()[: -(-high // 4), : -(-wide // 4)]
        grid = grid - grid.mean(axis=(0, 1))  # what the whole picture has in common tells no object from another
        self.features: FloatArray = grid / np.maximum(np.linalg.norm(grid, axis=2, keepdims=True), 1e-6)

    def embedding(self, mask: BoolArray) -> FloatArray:
        """The appearance (C + colours,) of what is under a mask of cells, at least one of them set."""
        weight = cv2.resize(mask.astype(np.float32), self.features.shape[1::-1], interpolation=cv2.INTER_AREA)
        pooled = unit((self.features * weight[..., None]).sum(axis=(0, 1)))
        return unit(np.concatenate([pooled, np.sqrt(_histogram(self.bins[mask]))]))

    def similarity_map(self, embedding: FloatArray) -> FloatArray:
        """The similarity of each cell (H, W) to an embedding, in [0, 1]."""
        channels = self.features.shape[2]
        similar = np.clip(self.features @ unit(embedding[:channels]), 0, 1).astype(np.float32)
        similar = cv2.resize(similar, self.shape[::-1], interpolation=cv2.INTER_LINEAR)
        colours = 2 * embedding[channels:] ** 2  # undoes what `embedding` did to the histogram
        share = colours / np.maximum(colours + self.colours, 1e-9)
        result: FloatArray = similar * share[self.bins]
        return result

    def motion(
        self, before: FrameAppearance, mask: BoolArray, velocity: npt.NDArray[np.float64], search_range: float
    ) -> npt.NDArray[np.float64]:
        """The shift (x, y) in cells of what was under a mask on the frame before, by template matching.

        `search_range`: distance from the shift that the velocity predicts, as a share of the longer side of the mask.
        """
        mask = mask.repeat(FINE, 0).repeat(FINE, 1)
        left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
        reach = max(FINE, round(search_range * max(width, height)))
        x, y = (round(float(value) * FINE) for value in velocity)
        pad = reach + max(abs(x), abs(y))
        padded = cv2.copyMakeBorder(self.pixels, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
        x1, y1 = pad + left + x - reach, pad + top + y - reach
        area = padded[y1 : y1 + height + 2 * reach, x1 : x1 + width + 2 * reach]
        template = before.pixels[top : top + height, left : left + width]
        inside = mask[top : top + height, left : left + width, None].repeat(3, 2).astype(np.uint8)
        error = cv2.matchTemplate(area, template, cv2.TM_SQDIFF, mask=inside)
        row, column = np.unravel_index(int(error.argmin()), error.shape)
        return np.array([column - reach + x, row - reach + y]) / FINE

    def most_similar_box(self, embedding: FloatArray, size: tuple[float, float]) -> tuple[Box, tuple[float, float]]:
        """The box of `size` (width, height) that is most similar to an embedding, and its best cell (x, y)."""
        similarity = self.similarity_map(embedding)
        window = (max(1, round(size[0])) | 1, max(1, round(size[1])) | 1)
        mean = cv2.boxFilter(similarity, -1, window, borderType=cv2.BORDER_CONSTANT)
        y, x = (int(i) for i in np.unravel_index(int(mean.argmax()), mean.shape))
        left, top = max(0, x - window[0] // 2), max(0, y - window[1] // 2)
        right, bottom = x + window[0] // 2 + 1, y + window[1] // 2 + 1
        inside = cv2.blur(similarity, (5, 5))[top:bottom, left:right]
        row, column = np.unravel_index(int(inside.argmax()), inside.shape)
        return (left, top, right, bottom), (left + float(column), top + float(row))


def unit(vector: FloatArray) -> FloatArray:
    """The vector at length 1; zeros stay zeros."""
    scaled: FloatArray = (vector / max(float(np.linalg.norm(vector)), 1e-6)).astype(np.float32)
    return scaled


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
