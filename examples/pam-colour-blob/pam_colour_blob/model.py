"""The model: flood fill around clicks, the dominant colour of a box, a mask as it is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pam_colour_blob.colours import describe_colour
from pam_colour_blob.info import INFO
from pam_core.errors import UnsupportedError
from pam_core.masks import BoolArray, Mask
from pam_core.questions import Generation, ImageEmbedding
from pam_core.types import Picture, Prompt, Region, language_codes

TOLERANCE = 18
"""How far each channel may be from the colour looked for, in 8-bit Lab."""


@dataclass(frozen=True)
class BlobEmbedding:
    """What is kept between prompts: the picture, and a smoothed copy in a colour space nearer to what we see."""

    picture: Picture
    lab: npt.NDArray[np.uint8]

    @property
    def width(self) -> int:
        return int(self.picture.shape[1])

    @property
    def height(self) -> int:
        return int(self.picture.shape[0])

    @property
    def nbytes(self) -> int:
        return self.picture.nbytes + self.lab.nbytes


class ColourBlob:
    """A `RegionModel`. It need not inherit from one: it has `info`, `embed`, `segment` and `describe`."""

    info = INFO

    def embed(self, picture: Picture) -> BlobEmbedding:
        smooth = cv2.medianBlur(np.ascontiguousarray(picture), 5)
        return BlobEmbedding(picture, cv2.cvtColor(smooth, cv2.COLOR_RGB2LAB))

    def segment(self, embedding: ImageEmbedding, prompts: Sequence[Prompt]) -> list[Region]:
        seen = _own(embedding)
        for prompt in prompts:  # all of them before any work is done
            prompt.check(seen.width, seen.height)
        return [Region(Mask.from_array(_find(seen, prompt)), self.info.ref, prompt) for prompt in prompts]

    def describe(
        self,
        embedding: ImageEmbedding,
        regions: Sequence[Region],
        tasks: Sequence[str],
        languages: Sequence[str] = ("en",),
        generation: Generation = Generation(),
    ) -> list[Region]:
        seen, codes = _own(embedding), language_codes(languages)
        self.info.check(tasks, codes)
        described = []
        for region in regions:
            pixels = seen.picture[region.mask.array]
            answers = describe_colour(pixels.mean(axis=0)) if len(pixels) else dict.fromkeys(codes, "")
            described.append(region.with_texts({task: {code: answers[code] for code in codes} for task in tasks}))
        return described


def _own(embedding: ImageEmbedding) -> BlobEmbedding:
    if not isinstance(embedding, BlobEmbedding):
        raise UnsupportedError(f"Got an embedding of {type(embedding).__name__}; wanted one that colour-blob made.")
    return embedding


def _find(seen: BlobEmbedding, prompt: Prompt) -> BoolArray:
    """The pixels meant by a prompt. A box or a mask that comes with clicks bounds them."""
    allowed = prompt.mask.array if prompt.mask else np.ones((seen.height, seen.width), np.bool_)
    if prompt.box is not None:
        x1, y1, x2, y2 = prompt.box
        inside = np.zeros_like(allowed)
        inside[math.floor(y1) : math.ceil(y2), math.floor(x1) : math.ceil(x2)] = True
        allowed &= inside
    wanted = [point for point, label in zip(prompt.points, prompt.labels, strict=True) if label]
    unwanted = [point for point, label in zip(prompt.points, prompt.labels, strict=True) if not label]
    if wanted:
        found = _around(seen.lab, wanted) & allowed
    elif prompt.box is not None:
        found = _dominant(seen.lab, allowed)
    else:
        found = allowed
    return found & ~_around(seen.lab, unwanted)


def _around(lab: npt.NDArray[np.uint8], points: Iterable[tuple[float, float]]) -> BoolArray:
    """The pixels connected to the clicked ones and similar to them."""
    height, width = lab.shape[:2]
    filled = np.zeros((height, width), np.bool_)
    tolerance = (TOLERANCE,) * 3
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | 255 << 8
    for x, y in points:
        fill = np.zeros((height + 2, width + 2), np.uint8)  # OpenCV wants a border of one pixel
        cv2.floodFill(lab, fill, (int(x), int(y)), (0, 0, 0), tolerance, tolerance, flags)
        filled |= fill[1:-1, 1:-1] > 0
    return filled


def _dominant(lab: npt.NDArray[np.uint8], allowed: BoolArray) -> BoolArray:
    """The allowed pixels that are similar to the colour most frequent among them."""
    colours = lab[allowed].astype(np.intp)
    if not len(colours):
        return allowed
    bins = colours // 32 @ (64, 8, 1)
    most = colours[bins == np.bincount(bins).argmax()].mean(axis=0)
    return allowed & (np.abs(lab - most) <= TOLERANCE).all(axis=2)
