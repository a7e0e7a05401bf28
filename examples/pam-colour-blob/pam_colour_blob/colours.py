"""Names for colours."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

NAMES = {
    (0, 0, 0): ("black", "黑色"),
    (128, 128, 128): ("grey", "灰色"),
    (255, 255, 255): ("white", "白色"),
    (205, 35, 35): ("red", "红色"),
    (240, 140, 30): ("orange", "橙色"),
    (120, 75, 40): ("brown", "棕色"),
    (225, 190, 150): ("beige", "米色"),
    (240, 220, 50): ("yellow", "黄色"),
    (70, 130, 60): ("green", "绿色"),
    (40, 190, 190): ("turquoise", "青色"),
    (40, 90, 200): ("blue", "蓝色"),
    (130, 60, 160): ("purple", "紫色"),
    (240, 150, 180): ("pink", "粉色"),
}
LIGHTNESS_WEIGHT = 0.5
"""A dark green is nearer to green than to black: lightness counts for less than hue."""


def describe_colour(rgb: npt.NDArray[np.float64]) -> dict[str, str]:
    """A colour (red, green, blue from 0 to 255) in words, by language: `{"en": "#cd2323 (red)", ...}`."""
    known = list(NAMES)
    distances = np.linalg.norm(_lab(known) - _lab([rgb]), axis=1)
    english, chinese = NAMES[known[int(distances.argmin())]]
    code = "#" + "".join(f"{round(float(channel)):02x}" for channel in rgb)
    return {"en": f"{code} ({english})", "zh": f"{code}（{chinese}）"}


def _lab(colours: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Colours (N, 3) in Lab, where distances are near to what we see, with `LIGHTNESS_WEIGHT` applied."""
    rgb = np.asarray(colours, np.float32)[None] / 255
    lab: npt.NDArray[np.float32] = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[0]
    return lab * np.array([LIGHTNESS_WEIGHT, 1, 1], np.float32)
