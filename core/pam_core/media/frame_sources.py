"""Where frames come from: video files, folders of pictures, iterables of arrays, cameras. One class each.

All give indices that rise by one, timestamps that rise and pictures of one size (`frame_clock`), and a Fault for a
frame that cannot be read. `fps` is frames a second, `size` (width, height), `frames` how many there are; None where
not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pam_core.contracts import ReversibleSource
from pam_core.errors import PictureError, VideoError, VideoReadError
from pam_core.media.camera import Camera
from pam_core.media.frame_clock import DEFAULT_FPS, FrameClock, fit
from pam_core.media.images import read_picture
from pam_core.media.video_file import VideoFile
from pam_core.types import Picture
from pam_core.video import Fault, Frame

__all__ = [
    "Camera",
    "FrameFolder",
    "FrameIterator",
    "FrameRange",
    "RecordedSource",
    "VideoFile",
    "natural_order",
    "open_source",
]

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif", ".avif"})


class RecordedSource(ReversibleSource, Protocol):
    """A `ReversibleSource` of known size and frame rate: a file, a folder, a range of either."""

    fps: float
    size: tuple[int, int]
    frames: int | None

    def reversed_from(self, index: int | None = None) -> Iterator[Frame | Fault]:
        """Frames in decreasing order from `index`, or from the last."""


class FrameFolder:
    """The pictures of a folder in natural order (2.png before 10.png), `fps` of them a second.

    A picture that cannot be read is a Fault. Raises VideoReadError where none can.
    """

    def __init__(self, path: str | Path, fps: float = DEFAULT_FPS) -> None:
        self.path, self.fps = Path(path), _rate(fps)
        try:
            files = [each for each in self.path.iterdir() if each.suffix.lower() in PICTURES and each.is_file()]
        except OSError as error:
            raise VideoReadError(f"{self.path}: {error.strerror}; wanted a folder of pictures.") from error
        self._paths = sorted(files, key=natural_order)
        self.frames: int | None = len(self._paths)
        first = next((picture for path in self._paths if (picture := _read(path)[0]) is not None), None)
        if first is None:
            raise VideoReadError(f"{self.path}: no picture in it can be read; wanted a folder of JPEGs, PNGs, ...")
        self.size = (int(first.shape[1]), int(first.shape[0]))

    def __iter__(self) -> Iterator[Frame | Fault]:
        return self._read_frames(range(len(self._paths)))

    def reversed_from(self, index: int | None = None) -> Iterator[Frame | Fault]:
        """Frames in decreasing order from `index`, or from the last."""
        last = len(self._paths) - 1
        return self._read_frames(range(last if index is None else min(index, last), -1, -1))

    def _read_frames(self, indices: range) -> Iterator[Frame | Fault]:
        source_size: tuple[int, int] | None = self.size
        for index in indices:
            clock = FrameClock(
                self.fps, size=self.size, index=index, time=(index - 1) / self.fps, source_size=source_size
            )
            picture, why = _read(self._paths[index])
            if picture is None:
                yield clock.skip(why)
            else:
                yield from _stamped(clock, index / self.fps, picture)
                source_size = clock.source_size


class FrameIterator:
    """Frames from any iterable of RGB arrays uint8 (height, width, 3), or of pairs (seconds, array).

    Arrays of another kind are Faults. Arrays without a time are `fps` a second. Iterating again starts over where
    the iterable does. The arrays are not copied.
    """

    def __init__(self, items: Iterable[Any], fps: float = DEFAULT_FPS) -> None:
        self._items, self.fps = items, _rate(fps)

    def __iter__(self) -> Iterator[Frame | Fault]:
        clock = FrameClock(self.fps)
        for item in self._items:
            timed = isinstance(item, tuple) and len(item) == 2
            time, picture = item if timed else (clock.index / self.fps, item)
            if (why := _array_fault(picture)) is not None:
                yield clock.skip(why)
            else:
                yield from _stamped(clock, time, picture)


class FrameRange:
    """A part of another source: frames from `start` on and before `end` (seconds) whose index `every` divides.

    Frames keep their indices and timestamps.
    """

    def __init__(self, source: RecordedSource, start: float = 0.0, end: float | None = None, every: int = 1) -> None:
        if every < 1:
            raise VideoError(f"Got every {every}; wanted 1 (each frame) or more.")
        if start < 0 or (end is not None and end <= start):
            raise VideoError(f"Got the part from {start:g} s to {end:g} s; wanted 0 <= start < end.")
        self._source, self.start, self.end, self.every = source, start, end, every
        self.fps, self.size = source.fps / every, source.size
        self.frames = self._count()

    def _count(self) -> int | None:
        if self._source.frames is None:
            return None
        rate = self._source.fps
        last = self._source.frames if self.end is None else min(self._source.frames, round(self.end * rate))
        return max(0, last - round(self.start * rate) + self.every - 1) // self.every

    def __iter__(self) -> Iterator[Frame | Fault]:
        for item in self._source:
            if self.end is not None and item.time >= self.end:
                return
            if item.time >= self.start and self._selected(item):
                yield item

    def reversed_from(self, index: int | None = None) -> Iterator[Frame | Fault]:
        """Frames in decreasing order from `index`, or from the last."""
        for item in self._source.reversed_from(index):
            if item.time < self.start:
                return
            if (self.end is None or item.time < self.end) and self._selected(item):
                yield item

    def _selected(self, item: Frame | Fault) -> bool:
        return isinstance(item, Fault) or item.index % self.every == 0


def open_source(text: str) -> VideoFile | FrameFolder | Camera:
    """The source that a text names: a video file, a folder of pictures, or `camera:0`.

    Raises VideoError for an address, VideoReadError where there is nothing to read, and MissingExtraError.
    """
    if text.startswith("camera:"):
        name = text.removeprefix("camera:")
        return Camera(int(name) if name.isdecimal() else name)
    if re.match(r"[a-z][a-z0-9+.-]+://", text, re.IGNORECASE):
        raise VideoError(f"Got the address {text}; wanted a file, a folder or camera:0. Download it first.")
    return FrameFolder(text) if Path(text).is_dir() else VideoFile(text)


def natural_order(path: Path) -> list[tuple[int, str]]:
    """A key that sorts numbers in names by value."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name.casefold())]


def _stamped(clock: FrameClock, time: float | None, picture: Picture) -> Iterator[Frame | Fault]:
    index, now, faults = clock.stamp(time, (int(picture.shape[1]), int(picture.shape[0])))
    yield from faults
    assert clock.size is not None
    yield Frame(index, now, fit(picture, clock.size))


def _read(path: Path) -> tuple[Picture | None, str]:
    try:
        return read_picture(path), ""
    except PictureError as error:
        return None, str(error)


def _array_fault(picture: Any) -> str | None:
    if not isinstance(picture, np.ndarray):
        return f"got {type(picture).__name__}; wanted an array"
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        return f"got an array {picture.dtype} {picture.shape}; wanted RGB uint8 (height, width, 3)"
    return None


def _rate(fps: float) -> float:
    if not 0 < fps <= 1000:
        raise VideoError(f"Got {fps} frames a second; wanted more than 0 and at most 1000.")
    return fps
