"""Detect where an event of an object ends, frame by frame, with memory that does not grow."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pam_core.errors import VideoError
from pam_core.types import Region

PRESENT = 0.5
"""The presence from which an object counts as visible."""
STILL_PIXELS = 1.0
STILL_SHARE = 0.05
"""Less motion than so many pixels a frame, or than this share of the size in `settle` frames, is none."""
GRID = 24
WINDOW = 4.0
"""An outline is kept as GRID x GRID cells of a window around the object's centre, so many times as wide as the root
of its area: objects that move, come nearer or go away keep their outline."""


@dataclass(frozen=True)
class EventRule:
    """When an event of an object ends, and the next begins, on one and the same frame: the boundary.

    Boundaries lie at least `min_frames` and at most `max_frames` apart; where both are equal, they are always that
    far apart and nothing is compared. Frames are counted as they come, whatever their indices. In between, an
    event ends where its last `settle` frames differ from all of its frames before them:

    - outline: the IoU of the mean masks, moved onto each other and scaled to one area, is below `shape`;
    - area: it is `area` times as large, or as small (geometric mean);
    - motion: the velocities differ by at least `motion` of the greater one. 0.65 is a turn by 38 degrees, or a speed
      three times as high, or a third; starting and stopping are always more. Less than a pixel a frame, or a
      twentieth of the object's size in `settle` frames, is no motion;
    - appearance: the cosine of the mean signatures is below `appearance`;

    and where the object disappears or appears: its presence was below 0.5 (or not) for `settle` frames in a row,
    and was not when the event began. A shorter absence changes nothing. A change that comes before `min_frames` ends
    the event then, if it still holds. The last event ends with the last frame, however short it is.

    Raises VideoError for values that make no sense.
    """

    min_frames: int = 16
    max_frames: int = 128
    settle: int = 5
    shape: float = 0.6
    area: float = 1.8
    motion: float = 0.65
    appearance: float = 0.8

    def __post_init__(self) -> None:
        if not 1 <= self.min_frames <= self.max_frames:
            raise VideoError(
                f"Got events of {self.min_frames} to {self.max_frames} frames; wanted at least 1, and the least not "
                "above the most."
            )
        if self.settle < 1:
            raise VideoError(f"Got changes that settle in {self.settle} frames; wanted at least 1.")
        if not (0 <= self.shape <= 1 and -1 <= self.appearance <= 1 and self.area >= 1 and self.motion > 0):
            raise VideoError(
                f"Got the thresholds shape {self.shape}, appearance {self.appearance}, area {self.area}, motion "
                f"{self.motion}; wanted shape 0 to 1, appearance -1 to 1, area at least 1, motion above 0."
            )

    @property
    def fixed(self) -> bool:
        """Whether events are of one length, so that regions and signatures do not matter."""
        return self.min_frames == self.max_frames


def is_visible(region: Region) -> bool:
    """Whether the object is visible on this frame."""
    return (region.presence is None or region.presence >= PRESENT) and region.mask.area > 0


class EventDetector:
    """The rule for one object."""

    def __init__(self, rule: EventRule) -> None:
        self._rule = rule
        self._visible: bool | None = None
        self._visible_at_first: bool | None = None
        self._past: npt.NDArray[np.float64] = np.zeros(1)
        self._recent: deque[npt.NDArray[np.float64]] = deque(maxlen=rule.settle)
        self._contrary = 0
        self._centre: tuple[float, float, float] | None = None
        self._frames = -1  # the first frame begins the first event

    def feed(self, region: Region, signature: npt.NDArray[np.float32], time: float) -> bool:
        """Add the object's next frame: its region, its signature (a unit vector), the frame's time in seconds.

        True where an event ends, and the next begins, with this frame.
        """
        if self._rule.fixed:
            return self._next()
        visible = is_visible(region)
        if self._visible is None:
            self._visible = visible
            self._visible_at_first = visible
        self._contrary = self._contrary + 1 if visible != self._visible else 0
        if self._contrary == self._rule.settle:
            self._visible, self._contrary = visible, 0
        if visible:
            if len(self._recent) == self._rule.settle:
                self._past = self._past + self._recent[0]
            self._recent.append(self._features(region, signature, time))
        else:
            self._centre = None
        return self._next()

    def _begin(self) -> None:
        self._frames = 0
        self._visible_at_first = self._visible
        self._past = np.zeros(1)
        self._recent.clear()

    def _next(self) -> bool:
        self._frames += 1
        over = self._frames >= self._rule.max_frames or (
            self._frames >= self._rule.min_frames and (self._visible != self._visible_at_first or self._changed())
        )
        if over:
            self._begin()
        return over

    def _features(self, region: Region, signature: npt.NDArray[np.float32], time: float) -> npt.NDArray[np.float64]:
        """One frame as a vector that can be summed: 1, log area, motion (x, y, seconds), outline, signature."""
        x, y, area, outline = _outline(region)
        motion = (0.0, 0.0, 0.0)
        if self._centre is not None:
            x0, y0, time0 = self._centre
            motion = (x - x0, y - y0, abs(time - time0))
        self._centre = (x, y, time)
        return np.concatenate([(1.0, math.log(area)), motion, outline.ravel(), signature.ravel()])

    def _changed(self) -> bool:
        rule = self._rule
        if len(self._recent) < rule.settle or self._past[0] < rule.settle:
            return False
        now, past = np.sum(self._recent, axis=0), self._past
        now_mean, past_mean = now / now[0], past / past[0]
        if abs(now_mean[1] - past_mean[1]) > math.log(rule.area):
            return True
        outlines = now_mean[_OUTLINE], past_mean[_OUTLINE]
        if np.minimum(*outlines).sum() < rule.shape * np.maximum(*outlines).sum():
            return True
        new, old = now[_SIGNATURE], past[_SIGNATURE]
        if new @ old < rule.appearance * np.linalg.norm(new) * np.linalg.norm(old):
            return True
        return self._motion_changed(now, past, math.exp(now_mean[1] / 2))

    def _motion_changed(self, now: npt.NDArray[np.float64], past: npt.NDArray[np.float64], size: float) -> bool:
        if now[4] <= 0 or past[4] <= 0:  # no speed without a difference in time
            return False
        fast, before = now[2:4] / now[4], past[2:4] / past[4]
        change = float(np.linalg.norm(fast - before))
        if change * now[4] < max(STILL_PIXELS * self._rule.settle, STILL_SHARE * size):
            return False
        return change >= self._rule.motion * max(np.linalg.norm(fast), np.linalg.norm(before))


_OUTLINE = slice(5, 5 + GRID * GRID)
_SIGNATURE = slice(5 + GRID * GRID, None)


def _outline(region: Region) -> tuple[float, float, float, npt.NDArray[np.uint8]]:
    """Centre x and y in pixels, area in pixels, and how much of each cell the mask covers, 0 to 255."""
    x1, y1, _, _ = region.box
    crop = region.mask.cropped.view(np.uint8)
    moments = cv2.moments(crop, binaryImage=True)
    area = moments["m00"]
    x, y = moments["m10"] / area, moments["m01"] / area
    scale = GRID / (WINDOW * math.sqrt(area))
    height, width = crop.shape
    # First down to half a cell a pixel, averaging: the warp alone would pick single pixels of a large ragged mask.
    size = (max(1, min(width, round(2 * scale * width))), max(1, min(height, round(2 * scale * height))))
    small = cv2.resize(crop * np.uint8(255), size, interpolation=cv2.INTER_AREA)
    across, down = scale * width / size[0], scale * height / size[1]
    middle = GRID / 2 - 0.5
    warp = np.array(
        [
            [across, 0, middle - scale * (x + 0.5) + across / 2],
            [0, down, middle - scale * (y + 0.5) + down / 2],
        ]
    )
    outline = cv2.warpAffine(small, warp, (GRID, GRID), flags=cv2.INTER_LINEAR)
    return x1 + x, y1 + y, area, outline.astype(np.uint8)
