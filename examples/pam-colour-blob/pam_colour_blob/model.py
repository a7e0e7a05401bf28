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
from pam_core.contracts import Tracker
from pam_core.errors import UnsupportedError
from pam_core.masks import BoolArray, Mask
from pam_core.questions import Answer, BatchDescription, Description, ImageEmbedding, Question
from pam_core.types import Picture, Prompt, Region

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
    """A `RegionModel`. It need not inherit from one: it has its attributes and methods."""

    info = INFO

    def embed(self, pictures: Sequence[Picture]) -> list[BlobEmbedding]:
        smooth = [cv2.medianBlur(np.ascontiguousarray(picture), 5) for picture in pictures]
        labs = [cv2.cvtColor(picture, cv2.COLOR_RGB2LAB) for picture in smooth]
        return [BlobEmbedding(picture, lab) for picture, lab in zip(pictures, labs, strict=True)]

    def segment(self, prompts: Sequence[tuple[ImageEmbedding, Prompt]]) -> list[list[Region]]:
        for embedding, prompt in prompts:  # all of them before any work is done
            prompt.check(embedding.width, embedding.height)
        return [
            [Region(Mask.from_array(_segment(_own(embedding), prompt)), self.info.ref, prompt)]
            for embedding, prompt in prompts
        ]

    def describe(self, questions: Sequence[Question]) -> Description:
        return BatchDescription(questions, self._answer, self._check)

    def open_tracker(self) -> Tracker:
        raise UnsupportedError(f"{self.info.name} is for pictures and tracks no objects.")

    def _check(self, questions: Sequence[Question]) -> None:
        for question in questions:
            self.info.check([question.task], [question.language])

    def _answer(self, questions: Sequence[Question]) -> list[Answer]:
        answers = []
        for question in questions:
            assert question.region is not None
            pixels = _own(question.embedding).picture[question.region.mask.array]
            texts = describe_colour(pixels.mean(axis=0)) if len(pixels) else {}
            answers.append(Answer(question, texts.get(question.language, "")))
        return answers


def _own(embedding: ImageEmbedding | None) -> BlobEmbedding:
    if not isinstance(embedding, BlobEmbedding):
        raise UnsupportedError(f"Got an embedding of {type(embedding).__name__}; wanted one that colour-blob made.")
    return embedding


def _segment(embedding: BlobEmbedding, prompt: Prompt) -> BoolArray:
    """The pixels meant by a prompt. A box or a mask that comes with clicks bounds them."""
    allowed = prompt.mask.array if prompt.mask else np.ones((embedding.height, embedding.width), np.bool_)
    if prompt.box is not None:
        x1, y1, x2, y2 = prompt.box
        inside = np.zeros_like(allowed)
        inside[math.floor(y1) : math.ceil(y2), math.floor(x1) : math.ceil(x2)] = True
        allowed &= inside
    wanted = [point for point, label in zip(prompt.points, prompt.labels, strict=True) if label]
    unwanted = [point for point, label in zip(prompt.points, prompt.labels, strict=True) if not label]
    if wanted:
        region = _flood(embedding.lab, wanted) & allowed
    elif prompt.box is not None:
        region = _dominant(embedding.lab, allowed)
    else:
        region = allowed
    return region & ~_flood(embedding.lab, unwanted)


def _flood(lab: npt.NDArray[np.uint8], points: Iterable[tuple[float, float]]) -> BoolArray:
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
