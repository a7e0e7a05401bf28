"""One object that is followed: where it was, how it moves, how it looks. In cells (see `video_segmenter`)."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from pam_core.masks import BoolArray, Box
from pam_plugins.models.lite.appearance import FINE, FloatArray, View, unit
from pam_plugins.models.lite.naming import box_iou
from pam_plugins.models.lite.video_segmenter import Ask
from pam_plugins.models.lite.whole import Whole, shifted

WHOLE = 0.7
"""An object of which less than this share of its usual area is seen is hidden in part: it is not learnt from."""

MARGIN = 0.04
"""How much wider than the predicted mask the prompt's box is, as a share of its sides: without room masks shrink."""

FILLED = 0.6
"""The IoU with the detector's box from which on what is predicted is kept."""

BESIDE = 0.3
"""How far beside that box others are told apart from it, as a share of its sides."""

COMING_OUT = 0.5
MOST_WIDER = 0.15
"""How much of what is lacking to the usual size the box is widened by too, and at most by how much."""

NEARLY_ALL = 0.85
"""Where less than this share of the whole is seen, the whole is looked for: it tells where the rest comes out."""

LACKING = 1.25
"""Where so many times what is predicted should be seen, more of it may have come out from behind something."""

LOOKED_UP = 0.3
MORE_LOOKED_UP = 0.1
"""How far the whole is looked for, as a share of its longer side, and how much farther by each frame while lost."""

FITTING = (0.5, 0.4)
"""The share of its cells that must fit before the whole is believed to be there: while it is seen, and while lost."""

WAITED_FOR = 30
"""For this many frames the whole of what is lost is looked for where it must be; one who went behind another that is
followed is awaited there.
"""

OUT = 0.2
"""It is awaited where more than this share of it must be out."""

LEARNING = 0.1
GROWING = 0.2
"""How fast looks and size follow what is seen, as a share of the difference, a frame."""

REACH = 0.35
"""How far from where it was going an object is looked for, as a share of its longer side."""

NOISE = 30.0
STEADINESS = 0.5
"""A place that fits as badly as this difference of pixels costs 1; one as far from the way as REACH, STEADINESS."""

NEAR = 0.05
"""An object is near another in whose box, wider by this share of its sides, it is."""

GIVE_UP = 10
"""For this many frames a lost object is looked for where it went; then anywhere alike."""

PLACES = 2
"""At how many places a frame a lost object is looked for."""

USUAL = 0.9
"""How like its own looks an object is expected to be, before this is known of it."""


@dataclass
class Track:
    """`mask`: what is seen of it, empty while it is lost; `box`: of the whole of it, which moves on while it is lost.
    `first`, `recent`, `look`: its looks as it began, of late, and when seen last. `area`: of the whole object.
    `velocity`: cells a frame. `usual`: how like its own looks it mostly is. `whole`: all of it, when it was last seen
    with nobody near. `behind`: whether it was lost where it met another that is followed.
    """

    mask: BoolArray
    box: Box
    first: FloatArray
    recent: FloatArray
    look: FloatArray
    area: float
    whole: Whole
    velocity: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    usual: float = USUAL
    lost_for: int = 0
    behind: bool = False

    @classmethod
    def begin(cls, mask: BoolArray, view: View) -> Track:
        look = view.look(mask)
        return cls(mask, tight(mask), look, look, look, float(mask.sum()), Whole.seen(mask, view))

    @property
    def seen(self) -> bool:
        return self.lost_for == 0

    def likeness(self, look: FloatArray) -> float:
        """How like this object something looks, in [0, 1]: as it began, and as it was lately."""
        return float(look @ (self.first + self.recent)) / 2

    @property
    def expected(self) -> BoolArray:
        """Where it may be on the next frame."""
        return boxed(widened(moved(self.box, self.velocity), NEAR), self.mask.shape)

    def predict(self, before: View, now: View) -> BoolArray:
        """Move on from the last frame to this one; the mask as it must be now. Empty while lost."""
        if not self.seen:
            long = self.lost_for > WAITED_FOR
            if long or not self.behind:
                self.velocity *= 0.95
            self.box = moved(self.box, self.velocity)
            if long:
                self.whole.fits = 0.0
            else:
                self.whole.move(self.velocity)
                self.whole.find(now, LOOKED_UP * (1 + MORE_LOOKED_UP * min(self.lost_for, 2 * GIVE_UP)))
            return self.mask
        shift = _shift(self.mask, self.velocity, before, now)
        self.velocity = 0.5 * self.velocity + 0.5 * shift
        self.box = moved(self.box, shift)
        self.whole.move(shift)
        if self.mask.sum() < NEARLY_ALL * self.whole.kept.sum():
            self.whole.find(now, LOOKED_UP)
            if self.whole.fits > FITTING[0]:
                self.whole.settle()
        return shifted(self.mask, shift)

    def coming_out(self, predicted: BoolArray, others: BoolArray) -> BoolArray | None:
        """What should be seen of it, where that is more than what is predicted."""
        due = (self.whole.mask & ~others) | predicted
        lacks = predicted.any() and due.sum() > LACKING * predicted.sum() and self.whole.fits > FITTING[0]
        return due if lacks else None

    def asks(self, predicted: BoolArray, others: BoolArray, view: View) -> list[Ask]:
        """Where to look for it: where it must be, or, while it is lost, where it may be."""
        if not self.seen:
            return self.awaited(others) + self._places(view)
        if not predicted.any():
            return []
        around, own = others & ~predicted, predicted & ~others
        lacking = float(np.sqrt(self.area / predicted.sum())) - 1
        box = widened(tight(predicted), MARGIN + COMING_OUT * min(max(lacking, -0.1), MOST_WIDER))
        inside = deepest(own if own.any() else predicted)
        asks = [Ask(box, inside, _within(around, box), predicted)]
        due = self.coming_out(predicted, others)
        if due is not None:
            box = widened(tight(due), MARGIN)
            asks.append(Ask(box, inside, _within(around, box), due))
        return asks

    def awaited(self, others: BoolArray) -> list[Ask]:
        """Where one who went behind another must come out; nowhere if that was not so, or long ago."""
        if not self.behind or self.whole.fits <= FITTING[1]:
            return []
        out = self.whole.mask & ~others
        if out.sum() <= OUT * self.area:
            return []
        box = widened(tight(out), MARGIN)
        return [Ask(box, deepest(out), _within(others & ~out, box), out)]

    def ask_in(self, box: Box, predicted: BoolArray, others: BoolArray, crowded: bool) -> Ask:
        """Look for it in the box where the detector sees it. `others` is where others are, who are not in its mask;
        who is `crowded` by them is asked for without what is predicted, which may be of them.
        """
        here = predicted & boxed(box, predicted.shape)
        own = here & ~others
        inside = deepest(own) if own.any() else centre(box)
        around = others & ~boxed(box, predicted.shape)
        known = here.any() and not crowded and box_iou(tight(here), box) >= FILLED
        wide = widened(box, MARGIN)
        return Ask(wide, inside, _within(around, widened(box, BESIDE)), here if known else None)

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
            middle_y, middle_x = (int(i) for i in np.unravel_index(int(mean.argmax()), mean.shape))
            left, top = max(0, round(middle_x - wide / 2)), max(0, round(middle_y - high / 2))
            right, bottom = round(middle_x + wide / 2) + 1, round(middle_y + high / 2) + 1
            inside = cv2.blur(alike, (5, 5))[top:bottom, left:right]
            row, column = np.unravel_index(int(inside.argmax()), inside.shape)
            asks.append(Ask((left, top, right, bottom), (left + float(column), top + float(row))))
            mean[top:bottom, left:right] = -1
        return asks

    def see(self, mask: BoolArray, look: FloatArray, view: View, *, crowded: bool, near: bool) -> None:
        """It was found here. What is hidden in part, or cut off by the picture's edge, teaches less; what is
        `crowded` by others like it, nothing. `near`: another that is followed may hide some of it, or be taken for
        it.
        """
        area = float(mask.sum())
        if not self.seen:
            self.velocity = np.zeros(2)
            if self.whole.fits > FITTING[1] and (mask & self.whole.mask).sum() > WHOLE * area:
                self.whole.settle()
        self.mask, self.look, self.lost_for = mask, look, 0
        if not self.is_whole:
            return
        self.box = tight(mask)
        if crowded:
            return
        if not near:
            self.whole = Whole.seen(mask, view)
        self.usual += LEARNING * (self.likeness(look) - self.usual)
        self.recent = unit((1 - LEARNING) * self.recent + LEARNING * look)
        touches = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
        if not touches or area > self.area:
            self.area += GROWING * (area - self.area)

    @property
    def is_whole(self) -> bool:
        """Whether all of it is seen, or nearly."""
        return bool(self.mask.sum() >= WHOLE * self.area)

    def lose(self, near: bool) -> None:
        if self.seen:
            self.behind = near
        self.mask = np.zeros_like(self.mask)
        self.lost_for += 1


def tight(mask: BoolArray) -> Box:
    """The box around the set cells, of which there is at least one."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return (float(x), float(y), float(x + width), float(y + height))


def boxed(box: Box, shape: tuple[int, ...]) -> BoolArray:
    """What of a mask of this shape (H, W) lies in a box."""
    mask = np.zeros(shape, bool)
    x1, y1, x2, y2 = (max(0, round(value)) for value in box)
    mask[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)] = True
    return mask


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


def _shift(mask: BoolArray, velocity: npt.NDArray[np.float64], before: View, now: View) -> npt.NDArray[np.float64]:
    """How far what is under a mask moved, in cells: where its pixels fit best, near where it was going."""
    mask = mask.repeat(FINE, 0).repeat(FINE, 1)
    left, top, right, bottom = (round(value) for value in tight(mask))
    reach = max(8, round(REACH * max(right - left, bottom - top)))
    x, y = (round(float(value) * FINE) for value in velocity)
    pad = reach + max(abs(x), abs(y))
    around = cv2.copyMakeBorder(now.fine, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    around = around[
        pad + top + y - reach : pad + bottom + y + reach, pad + left + x - reach : pad + right + x + reach
    ]
    shown = np.repeat(mask[top:bottom, left:right, None].astype(np.uint8), 3, axis=2)
    cost = cv2.matchTemplate(around, before.fine[top:bottom, left:right], cv2.TM_SQDIFF, mask=shown)
    ys, xs = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    cost = cost / (mask.sum() * NOISE**2) + STEADINESS * (xs**2 + ys**2) / reach**2
    row, column = np.unravel_index(int(cost.argmin()), cost.shape)
    return np.array([column - reach + x, row - reach + y]) / FINE
