"""Indices that rise by one, times that rise and one size: what every source of frames gives.

Trackers remember masks and positions in pixels and cannot live with a size that changes, so frames of another size
are scaled to that of the first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pam_core.types import Picture
from pam_core.video import Fault

DEFAULT_FPS = 25.0
"""Frames a second of a source that does not say how many it has."""
STEADY_FRAMES = 24
"""After so many frames in a row at an even distance, a gap means that frames are missing."""


@dataclass
class FrameClock:
    """Gives frames their index and timestamp.

    `index` is that of the next frame, `time` that of the frame before, in seconds. `even`: the source declares frames
    1 / `fps` apart; `steady` is how many in a row were. `size` (width, height) is that of the first frame,
    `source_size` that of the last one before it was scaled. `shift` is added to the source's timestamps, so that the
    first is 0 and none is less than the one before. `untimed`: a frame without a timestamp was reported;
    `unreadable`: the frame before could not be read.
    """

    fps: float = DEFAULT_FPS
    even: bool = False
    steady: int = 0
    size: tuple[int, int] | None = None
    index: int = 0
    time: float | None = None
    shift: float = 0.0
    source_size: tuple[int, int] | None = None
    untimed: bool = False
    unreadable: bool = False

    def skip(self, why: str, time: float | None = None) -> Fault:
        """The fault of a frame that cannot be read, which takes an index; `time` is its timestamp, where known."""
        expected = self._expected_time() if time is None or self.time is None else time + self.shift
        self.index += 1
        self.unreadable = True
        return Fault(self.index - 1, expected, f"frame {self.index - 1} cannot be read ({why}); the rest goes on.")

    def stamp(self, time: float | None, size: tuple[int, int]) -> tuple[int, float, list[Fault]]:
        """Index and time of the next frame, of its timestamp and size (width, height), and the faults of these."""
        faults = []
        if time is None or not math.isfinite(time):
            now = self._expected_time()
            if not self.untimed:
                self.untimed = True
                faults.append(f"frame {self.index} has no time; times are made from {self.fps:g} frames a second.")
        else:
            if self.time is None:
                self.shift = -time
            now = time + self.shift
            if self.time is not None and now <= self.time:
                expected = self._expected_time()
                faults.append(
                    f"the time of frame {self.index} is {now:.3f} s, and that of the frame before {self.time:.3f} s; "
                    f"it is taken as {expected:.3f} s, and the following are moved along."
                )
                self.shift += expected - now
                now = expected
            elif self.time is not None:
                step = (now - self.time) * self.fps
                if self.even and self.steady >= STEADY_FRAMES and step > 2.5 and not self.unreadable:
                    missing = f"between {self.time:.3f} s and {now:.3f} s"
                    faults.append(f"there is nothing {missing}: frames are missing before frame {self.index}.")
                self.steady = self.steady + 1 if 0.5 < step < 1.5 else 0
        self.size = self.size or size
        if size != (self.source_size or self.size):
            faults.append(
                f"from frame {self.index} on, frames are {size[0]}x{size[1]}; "
                f"they are scaled to {self.size[0]}x{self.size[1]}, the size of the first."
            )
        self.source_size = size
        self.time, self.unreadable = now, False
        self.index += 1
        return self.index - 1, now, [Fault(self.index - 1, now, what) for what in faults]

    def _expected_time(self) -> float:
        return 0.0 if self.time is None else self.time + 1 / self.fps


def fit(picture: Picture, size: tuple[int, int]) -> Picture:
    """The picture scaled to `size` (width, height); itself where it has that size."""
    if (picture.shape[1], picture.shape[0]) == size:
        return picture
    import cv2

    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
