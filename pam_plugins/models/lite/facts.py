"""Measure a region: colours, position, share of the picture, relations to other regions. No network is used.

Captions state the label and these facts only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pam_core.masks import BoolArray

MAX_SAMPLES = 4096
MIN_COLOUR_SHARE = 0.22
RELATION_SIDE = 256
"""Relations are measured on masks scaled down to this many pixels on the long side."""


@dataclass(frozen=True)
class Facts:
    """Measurements of one region.

    `colours`: one or two names, the more frequent first. `row`, `column`: -1, 0 or 1 from the top left. `share`: of
    the picture's area. `touches`, `inside`, `rests_on`: indices of other regions of the same call.
    """

    colours: tuple[str, ...]
    row: int
    column: int
    share: float
    touches: tuple[int, ...] = ()
    inside: int | None = None
    rests_on: int | None = None


def measure(picture: npt.NDArray[np.uint8], masks: Sequence[BoolArray]) -> list[Facts]:
    """The facts of each masked region of an RGB picture (H, W, 3)."""
    relations = _relations([_shrink(mask) for mask in masks])
    facts = []
    for mask, (touches, inside, rests_on) in zip(masks, relations, strict=True):
        rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
        if len(rows) == 0:
            facts.append(Facts((), 0, 0, 0.0))
            continue
        row = third((rows[0] + rows[-1] + 1) / 2 / mask.shape[0])
        column = third((columns[0] + columns[-1] + 1) / 2 / mask.shape[1])
        facts.append(Facts(_colours(picture, mask), row, column, float(mask.mean()), touches, inside, rests_on))
    return facts


def third(position: float) -> int:
    """The third of a side that a position in [0, 1] lies in: -1, 0 or 1. The middle one is a little narrower."""
    return -1 if position < 0.36 else 1 if position > 0.64 else 0


def _colours(picture: npt.NDArray[np.uint8], mask: BoolArray) -> tuple[str, ...]:
    pixels = picture[mask]
    pixels = pixels[:: max(1, len(pixels) // MAX_SAMPLES)]
    names, counts = np.unique(colour_names(pixels), return_counts=True)
    order = np.argsort(-counts)
    kept = [str(names[i]) for i in order[:2] if counts[i] / len(pixels) >= MIN_COLOUR_SHARE]
    return tuple(kept or [str(names[order[0]])])


def colour_names(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.str_]:
    """Basic colour name of each RGB pixel (N, 3), from lightness, chroma and hue in CIE Lab.

    The thresholds between names were set by eye on colour charts.
    """
    lab = cv2.cvtColor(np.ascontiguousarray(pixels[None]).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    light, a, b = lab.T
    chroma = np.hypot(a, b)
    hue = np.degrees(np.arctan2(b, a)) % 360
    names = np.full(len(pixels), "grey", dtype="<U6")
    names[light < 22] = "black"
    names[light > 86] = "white"
    for top, name in reversed(_HUES):  # from the last to the first, so that the lowest fitting border wins
        names[_is_chromatic(light, chroma) & (hue < top)] = name
    warm = _is_chromatic(light, chroma) & (hue >= 30) & (hue < 95)
    names[warm & (light < 60) & (chroma < np.where(hue < 80, 55, 38))] = "brown"  # a lemon in shadow stays yellow
    names[warm & (light >= 60) & (chroma < np.where(hue < 85, 38, 32))] = "beige"
    reddish = _is_chromatic(light, chroma) & ((hue < 30) | (hue >= 330))
    names[reddish & (light > 65)] = "pink"
    names[reddish & (light < 35) & (chroma < 30)] = "brown"
    return names


_HUES = (
    (42, "red"),
    (74, "orange"),
    (105, "yellow"),
    (185, "green"),
    (303, "blue"),
    (330, "purple"),
    (346, "pink"),
    (361, "red"),
)


def _is_chromatic(light: npt.NDArray[np.float32], chroma: npt.NDArray[np.float32]) -> BoolArray:
    """Whether a pixel is chromatic rather than grey; very dark and very light ones need more chroma."""
    return chroma > np.where(light < 22, 22, np.where(light > 86, 12, 11))


def _shrink(mask: BoolArray) -> BoolArray:
    scale = RELATION_SIDE / max(mask.shape)
    if scale >= 1:
        return mask
    size = (max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale)))
    return cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)


def _relations(masks: Sequence[BoolArray]) -> list[tuple[tuple[int, ...], int | None, int | None]]:
    """For each mask the indices of the masks it touches, of the one it lies inside and of the one it rests on."""
    reach = [cv2.dilate(mask.view(np.uint8), np.ones((5, 5), np.uint8)).view(np.bool_) for mask in masks]
    below = [_lower_edge(mask) for mask in masks]
    relations = []
    for i, mask in enumerate(masks):
        touches, inside, rests_on = [], None, None
        area = mask.sum()
        for j, other in enumerate(masks):
            if i == j or not area or not other.any():
                continue
            contact = (reach[i] & other).sum()
            overlap = (mask & other).sum()
            if overlap > 0.9 * area and other.sum() > 1.5 * area:
                inside = j if inside is None or other.sum() < masks[inside].sum() else inside
            elif contact >= 4 and overlap < 0.5 * min(area, other.sum()):
                touches.append(j)
                if below[i].any() and (below[i] & other).sum() > 0.5 * below[i].sum():
                    rests_on = j
        relations.append((tuple(touches), inside, rests_on))
    return relations


def _lower_edge(mask: BoolArray) -> BoolArray:
    """The three rows of pixels under the lowest tenth of a mask, which lie on its support."""
    edge = np.zeros_like(mask)
    rows = np.nonzero(mask.any(axis=1))[0]
    if len(rows) == 0:
        return edge
    start = rows[-1] - (rows[-1] - rows[0]) // 10
    foot = np.zeros_like(mask)
    foot[start:] = mask[start:]
    for shift in (1, 2, 3):
        edge[shift:] |= foot[:-shift]
    return edge & ~mask
