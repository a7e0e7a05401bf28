"""Reads the text on a region with RapidOCR (PP-OCR models inside its wheel), an optional extra."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pam_core.masks import BoolArray, Box
from pam_core.types import Picture

MIN_SCORE = 0.6
MARGIN = 4


class Reader:
    """Loads RapidOCR, which `info.py` has found."""

    def __init__(self) -> None:
        from rapidocr import RapidOCR

        self._engine = RapidOCR(params={"Global.log_level": "error"})

    def read(self, picture: Picture, box: Box, mask: BoolArray) -> str:
        """The lines whose middle lies on the mask, from top to bottom, joined by spaces; "" where there are none."""
        x1, y1, x2, y2 = (int(value) for value in box)
        left, top = max(0, x1 - MARGIN), max(0, y1 - MARGIN)
        crop = picture[top : y2 + MARGIN, left : x2 + MARGIN, ::-1]  # RapidOCR takes BGR
        if 0 in crop.shape:
            return ""
        found = self._engine(np.ascontiguousarray(crop))
        if found.boxes is None or found.txts is None or found.scores is None:
            return ""
        return " ".join(
            text
            for corners, text, score in zip(found.boxes, found.txts, found.scores, strict=True)
            if score >= MIN_SCORE and _on(mask, corners.mean(axis=0) + np.array([left, top]))
        )


def _on(mask: BoolArray, point: npt.NDArray[np.float64]) -> bool:
    x, y = (int(value) for value in point)
    return bool(0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x])
