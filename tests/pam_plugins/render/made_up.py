"""Made-up perceptions: shapes on a noisy picture, with whatever texts a test asks for."""

from __future__ import annotations

from typing import Any

import numpy as np

from pam_core.masks import Mask
from pam_core.types import ModelRef, Perception, Region

MODEL = ModelRef("tiny", "1.0", "A made-up model of 3 MB, small and often wrong.")
TEXTS = {
    "label": {"en": "tabby cat", "zh": "虎斑猫"},
    "explanation": {"en": "A cat with stripes.", "zh": "有条纹的猫。"},
    "brief": {"en": "A cat on a mat.", "zh": "垫子上的猫。"},
    "detailed": {"en": "A striped cat lies on a mat.", "zh": "一只有条纹的猫躺在垫子上。"},
    "text": {"en": "MEOW"},
}


def disc(width: int, height: int, x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def ring(width: int, height: int, x: float, y: float, radius: float, hole: float) -> np.ndarray:
    return disc(width, height, x, y, radius) & ~disc(width, height, x, y, hole)


def region(mask: np.ndarray, texts: dict[str, dict[str, str]] | None = None, **more: Any) -> Region:
    more.setdefault("scores", {"label": 0.87})
    more.setdefault("predicted_iou", 0.93)
    return Region(Mask.from_array(mask), MODEL, texts=TEXTS if texts is None else texts, **more)


def perception(image: str, width: int, height: int, *regions: Region, error: str | None = None) -> Perception:
    return Perception(image, width, height, MODEL, regions, "run-1", {"embed": 0.4, "segment": 0.05}, error)


def picture(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(7).integers(90, 130, (height, width, 3), dtype=np.uint8)
