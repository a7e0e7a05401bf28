"""One object that is followed: where it was, how it moves, how it looks. In cells (see `video_segmenter`)."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from pam_core.masks import BoolArray, Box
from pam_plugins.builtin.lite.appearance import FloatArray, View, unit
from pam_plugins.builtin.lite.video_segmenter import Ask

WHOLE = 0.7
"""An object of which less than this share of its usual area is seen is hidden in part: it is not learnt from."""

MARGIN = 0.04
HIDDEN_MARGIN = 0.15
"""How much wider than predicted the prompt's box is, as a share of its sides: more where an object comes out."""

LEARNING = 0.1
GIVE_UP = 10
"""For this many frames a lost object is looked for where it went; then anywhere alike."""

PLACES = 2
"""How many places a frame a lost object is looked for at."""

USUAL = 0.9
MASK = 1
ARATE = 0.1


@dataclass
class Track:
    """`mask`: what was seen last, empty while it is lost; `box`: of the whole object, which moves on while hidden.
    `usual`: how like its own looks it mostly is.
    """

    mask: BoolArray
    box: Box
    first: FloatArray
    recent: FloatArray
    area: float
    velocity: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    usual: float = USUAL
    lost_for: int = 0

    @classmethod
    def begin(cls, mask: BoolArray, view: View) -> Track:
        look = view.look(mask)
        return cls(mask, tight(mask), look, look, float(mask.sum()))

    @property
    def seen(self) -> bool:
        return self.lost_for == 0

    def likeness(self, look: FloatArray) -> float:
        """How like this object something looks, in [0, 1]: as it began, and as it was lately."""
        return float(look @ (self.first + self.recent)) / 2

    def predict(self, flow: FloatArray) -> BoolArray:
        """Move on by the flow (H, W, 2) since the last frame; the mask as it must be now. Empty while lost."""
        if not self.seen:
            self.velocity *= 0.95
            self.box = moved(self.box, self.velocity)
            return self.mask
        inner = cv2.erode(self.mask.view(np.uint8), np.ones((3, 3), np.uint8)).view(np.bool_)
        shift = np.median(flow[inner if inner.any() else self.mask], axis=0).astype(np.float64)
        self.velocity = 0.6 * self.velocity + 0.4 * shift
        self.box = moved(self.box, shift)
        high, wide = self.mask.shape
        matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
        return cv2.warpAffine(self.mask.astype(np.float32), matrix, (wide, high)) > 0.5

    def asks(self, predicted: BoolArray, others: BoolArray, view: View) -> list[Ask]:
        """Where to look for it: where it must be, or, while it is lost, where it may be."""
        if not self.seen:
            return self._places(view)
        if not predicted.any():
            return []
        hidden = predicted.sum() < WHOLE * self.area
        box = widened(tight(predicted), HIDDEN_MARGIN if hidden else MARGIN)
        around = others & ~predicted
        return [Ask(box, deepest(predicted & ~others if (predicted & ~others).any() else predicted), _within(around, box), predicted if MASK else None)]

    def _places(self, view: View) -> list[Ask]:
        """The places that look most like it, windows of its size, the near ones first for a while."""
        wide, high = self.box[2] - self.box[0], self.box[3] - self.box[1]
        alike = view.likeness(self.recent)
        window = (max(1, round(wide)) | 1, max(1, round(high)) | 1)
        mean = cv2.boxFilter(alike, -1, window, borderType=cv2.BORDER_CONSTANT)
        if self.lost_for <= GIVE_UP:
            ys, xs = np.mgrid[: mean.shape[0], : mean.shape[1]]
            x, y = centre(self.box)
            reach = max(wide, high) * (1 + 0.2 * self.lost_for)
            mean = mean * (0.3 + np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * reach**2))).astype(np.float32)
        asks = []
        for _ in range(PLACES):
            y, x = np.unravel_index(int(mean.argmax()), mean.shape)
            left, top = max(0, round(x - wide / 2)), max(0, round(y - high / 2))
            right, bottom = round(x + wide / 2) + 1, round(y + high / 2) + 1
            inside = cv2.blur(alike, (5, 5))[top:bottom, left:right]
            row, column = np.unravel_index(int(inside.argmax()), inside.shape)
            asks.append(Ask((left, top, right, bottom), (left + float(column), top + float(row))))
            mean[top:bottom, left:right] = -1
        return asks

    def see(self, mask: BoolArray, look: FloatArray) -> None:
        """It was found here."""
        area = float(mask.sum())
        if self.lost_for:
            self.velocity = np.zeros(2)
        self.mask, self.lost_for = mask, 0
        touches = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
        if area < WHOLE * self.area:
            found, whole = centre(tight(mask)), self.box
            if not touches and not _overlap(tight(mask), whole):
                self.box = moved(whole, np.array(found) - centre(whole))
            return
        self.box = tight(mask)
        self.usual += LEARNING * (self.likeness(look) - self.usual)
        self.recent = unit((1 - LEARNING) * self.recent + LEARNING * look).astype(np.float32)
        if not touches or area > self.area:
            self.area += ARATE * (area - self.area)

    def lose(self) -> None:
        self.mask = np.zeros_like(self.mask)
        self.lost_for += 1


def tight(mask: BoolArray) -> Box:
    """The box around the set cells, of which there is at least one."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return (float(x), float(y), float(x + width), float(y + height))


def centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def moved(box: Box, shift: npt.NDArray[np.float64]) -> Box:
    x, y = (float(value) for value in shift)
    return (box[0] + x, box[1] + y, box[2] + x, box[3] + y)


def widened(box: Box, margin: float) -> Box:
    x, y = margin * (box[2] - box[0]), margin * (box[3] - box[1])
    return (box[0] - x, box[1] - y, box[2] + x, box[3] + y)


def deepest(mask: BoolArray) -> tuple[float, float]:
    """The cell farthest from the edge of a mask (x, y)."""
    padded = np.pad(mask.view(np.uint8), 1)
    y, x = np.unravel_index(int(cv2.distanceTransform(padded, cv2.DIST_L2, 3).argmax()), padded.shape)
    return float(x - 1), float(y - 1)


def _within(mask: BoolArray, box: Box) -> tuple[float, float] | None:
    """A cell deep in the part of a mask that lies in a box; None where there is none."""
    x1, y1, x2, y2 = (max(0, round(value)) for value in box)
    part = np.ascontiguousarray(mask[y1:y2, x1:x2])
    if not part.any():
        return None
    x, y = deepest(part)
    return x1 + x, y1 + y


def _overlap(a: Box, b: Box) -> bool:
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])
