"""What every source of frames keeps to: numbers that rise by one, times that rise, one size.

Trackers remember masks and positions in pixels and cannot live with a size that changes, so frames of another size
are scaled to that of the first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pam_core.types import Picture
from pam_core.video import Fault

DEFAULT_FPS = 25.0
"""Frames a second where nothing says how many there are."""
SURELY_STEADY = 24
"""Frames at an even distance, one after the other, after which a hole means that some are missing."""


@dataclass
class FrameClock:
    """How far a source has come: `index` is that of the next frame, `time` that of the frame before, in seconds.

    `even` where frames are said to be 1 / `fps` apart, and `steady` how many in a row were. `size` (width, height) is
    that of the first frame. `shift` is added to the times as they come, so that the first is 0, and that they go on
    where they jump backward.
    """

    fps: float = DEFAULT_FPS
    even: bool = False
    steady: int = 0
    size: tuple[int, int] | None = None
    index: int = 0
    time: float | None = None
    shift: float = 0.0
    came_in: tuple[int, int] | None = None
    untimed: bool = False
    losing: bool = False

    def lost(self, why: str, time: float | None = None) -> Fault:
        """A frame that could not be had. It keeps its number; `time` is its time as it came, where known."""
        expected = self._made_time() if time is None or self.time is None else time + self.shift
        self.index += 1
        self.losing = True
        return Fault(self.index - 1, expected, f"frame {self.index - 1} cannot be read ({why}); the rest goes on.")

    def take(self, time: float | None, size: tuple[int, int]) -> tuple[int, float, list[Fault]]:
        """The number and time of the frame that came with this time and size (width, height), and what was wrong."""
        wrong = []
        if time is None or not math.isfinite(time):
            now = self._made_time()
            if not self.untimed:
                self.untimed = True
                wrong.append(f"frame {self.index} has no time; times are made from {self.fps:g} frames a second.")
        else:
            if self.time is None:
                self.shift = -time
            now = time + self.shift
            if self.time is not None and now <= self.time:
                made = self._made_time()
                wrong.append(
                    f"the time of frame {self.index} is {now:.3f} s, and that of the frame before {self.time:.3f} s; "
                    f"it is taken as {made:.3f} s, and the following are moved along."
                )
                self.shift += made - now
                now = made
            elif self.time is not None:
                step = (now - self.time) * self.fps
                if self.even and self.steady >= SURELY_STEADY and step > 2.5 and not self.losing:
                    missing = f"between {self.time:.3f} s and {now:.3f} s"
                    wrong.append(f"there is nothing {missing}: frames are missing before frame {self.index}.")
                self.steady = self.steady + 1 if 0.5 < step < 1.5 else 0
        self.size = self.size or size
        if size != (self.came_in or self.size):
            wrong.append(
                f"from frame {self.index} on, frames are {size[0]}x{size[1]}; "
                f"they are scaled to {self.size[0]}x{self.size[1]}, the size of the first."
            )
        self.came_in = size
        self.time, self.losing = now, False
        self.index += 1
        return self.index - 1, now, [Fault(self.index - 1, now, what) for what in wrong]

    def _made_time(self) -> float:
        return 0.0 if self.time is None else self.time + 1 / self.fps


def fit(picture: Picture, size: tuple[int, int]) -> Picture:
    """The picture scaled to `size` (width, height); itself where it has that size."""
    if (picture.shape[1], picture.shape[0]) == size:
        return picture
    import cv2

    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
