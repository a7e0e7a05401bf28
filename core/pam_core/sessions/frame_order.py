"""Check that a frame follows those before it: its size, its index, its time."""

from __future__ import annotations

from dataclasses import dataclass, field

from pam_core.video import Fault, Frame

JUMP_SECONDS = 1.0
JUMP_TIMES = 10.0
"""Time jumps where a frame is more than a second after the one before, and more than ten times the usual distance
for the difference in index."""
PACE_WEIGHT = 0.1


@dataclass
class FrameOrder:
    """The order of the frames of one pass; `step` is 1 where their indices go up, -1 where they go down.

    `last` is the index and time of the last usable frame.
    """

    step: int
    last: tuple[int, float] | None = field(default=None, init=False)
    _size: tuple[int, int] | None = field(default=None, init=False)
    _pace: float | None = field(default=None, init=False)
    _reported: bool = field(default=False, init=False)

    def order_fault(self, frame: Frame) -> Fault | None:
        """The fault of a frame of another size or out of order, which no tracker takes; None for a usable one."""
        height, width = frame.picture.shape[:2]
        self._size = self._size or (width, height)
        if (width, height) != self._size:
            what = f"Got a frame of {width}x{height} after frames of {self._size[0]}x{self._size[1]}; it is skipped."
            return Fault(frame.index, frame.time, f"{what} Scale all frames of a source to one size.")
        if self.last is not None and (frame.index - self.last[0]) * self.step <= 0:
            return Fault(
                frame.index, frame.time, f"Got frame {frame.index} after frame {self.last[0]}; it is skipped."
            )
        return None

    def time_fault(self, frame: Frame) -> Fault | None:
        """The fault of a frame whose time stands still, goes back or jumps, reported once; the frame is used."""
        last, self.last = self.last, (frame.index, frame.time)
        if last is None:
            return None
        seconds = (frame.time - last[1]) * self.step
        pace = seconds / abs(frame.index - last[0])
        usual, what = self._pace, None
        if seconds <= 0:
            what = f"Time does not go on: {frame.time:.3f} s at this frame, {last[1]:.3f} s at frame {last[0]}."
        else:
            self._pace = pace if usual is None else usual + PACE_WEIGHT * (min(pace, JUMP_TIMES * usual) - usual)
            if usual is not None and seconds > JUMP_SECONDS and pace > JUMP_TIMES * usual:
                what = f"Time jumps by {seconds:.1f} s, from {last[1]:.3f} s at frame {last[0]}."
        known, self._reported = self._reported, what is not None
        return Fault(frame.index, frame.time, what) if what is not None and not known else None
