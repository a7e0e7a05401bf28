"""`VideoFile`: the frames of a video file, forward and backward, decoded ahead of need and dropped behind."""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from queue import Full, Queue
from threading import Event, Thread
from typing import TYPE_CHECKING, TypeVar

from pam_core.errors import VideoError
from pam_core.media.frame_clock import DEFAULT_FPS, FrameClock, fit
from pam_core.media.pyav import load_av, upright, upright_size
from pam_core.video import Fault, Frame

if TYPE_CHECKING:
    import av

AHEAD = 4
"""Frames decoded ahead of need."""
BACKWARD_BYTES = 200_000_000
"""Pictures held at once while reading backward; a keyframe interval that is larger is decoded several times."""
PLACE_EVERY = 16
"""Frames between the places that are remembered for reading backward, at least."""
MOST_READ_ERRORS = 100
"""Failures to read from the file, one after the other, before the rest of it is given up."""
NO_VIDEO = frozenset({"tty"})
"""What FFmpeg takes any text for."""
DECODING_TIMES = frozenset({"avi"})
"""Containers whose only timestamps are those of decoding; these rise by what the frames, once in order, rise by."""

T = TypeVar("T")


@dataclass(frozen=True)
class _Decoded:
    index: int
    time: float
    frame: av.VideoFrame


@dataclass(frozen=True)
class _Place:
    """A keyframe where decoding can begin: its timestamp, and how far the file had come before it.

    `seek` is the timestamp to ask for: some containers lead past the keyframe that is asked for.
    """

    timestamp: int | None
    course: FrameClock
    seek: int | None = None


class _Missed(Exception):
    """Seeking did not lead to the keyframe that was wanted."""


class VideoFile:
    """Frames of a video file in any codec that PyAV reads. Iterating again starts over.

    Pictures are upright, RGB uint8 (height, width, 3); times are the file's timestamps, from 0 at the first frame. A
    frame that does not decode is a Fault and keeps its number; so is a file cut short, a time that does not rise (it
    is made from the frame rate) and a change of size (frames are scaled to the size of the first). Memory is a few
    frames forward and 200 MB backward, plus some bytes for each keyframe.

    `fps` is the average rate, `size` (width, height), `frames` how many the file says there are, None where it does
    not. Raises VideoError where the file is no video. Only local files are opened, whatever they refer to.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            what = "a folder" if self.path.is_dir() else "no such file"
            raise VideoError(f"{self.path}: {what}; wanted a video file such as an MP4.")
        with self._open() as (container, stream):
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            self.fps = rate if 0 < rate <= 1000 else DEFAULT_FPS
            self.frames: int | None = stream.frames or None
            start = FrameClock(self.fps, even=stream.average_rate == stream.base_rate)
            start.untimed = container.format.name in DECODING_TIMES  # the last few have none
        self._places = [_Place(None, start)]
        self._known = 0
        self._ended = False
        with closing(self._walk(self._places[0])) as walk:
            first = next((seen for seen in walk if isinstance(seen, _Decoded)), None)
        if first is None:
            raise VideoError(f"{self.path}: no frame of it can be decoded; get the file again, or convert it.")
        self.size = upright_size(first.frame)

    def __iter__(self) -> Iterator[Frame | Fault]:
        return _ahead(self._given(seen) for seen in self._walk(self._places[0]))

    def reversed_from(self, index: int | None = None) -> Iterator[Frame | Fault]:
        """The frames from `index` (the last if None) to 0. The file is read up to `index` once to learn its keys."""
        return _ahead(self._backward(index))

    def _backward(self, index: int | None) -> Generator[Frame | Fault, None, None]:
        upper = self._learn(index)
        while upper > 0:
            held = max(1, BACKWARD_BYTES // (3 * self.size[0] * self.size[1]))
            lower = max(self._place(upper - 1).course.index, upper - held)
            chunk: list[Frame | Fault] = []
            with closing(self._walk_from(lower)) as walk:
                for seen in walk:
                    if seen.index >= upper:
                        break
                    if seen.index >= lower:
                        chunk.append(self._given(seen))
            while chunk:
                yield chunk.pop()
            upper = lower

    def _learn(self, index: int | None) -> int:
        """Read on until the keyframes up to `index` are known; one past the last frame to be had of these."""
        if not self._ended and (index is None or self._known <= index):
            with closing(self._walk_from(self._known)) as walk:
                for seen in walk:
                    if index is not None and seen.index > index:
                        break
        return self._known if index is None else min(index + 1, self._known)

    def _place(self, index: int) -> _Place:
        return next(place for place in reversed(self._places) if place.course.index <= index)

    def _walk_from(self, index: int) -> Generator[_Decoded | Fault, None, None]:
        """Like `_walk`, from the last keyframe at or before `index`."""
        while True:
            place = self._place(index)
            try:
                yield from self._walk(place)
                return
            except _Missed:
                at = self._places.index(place)
                before = self._places[at - 1].timestamp
                retry = [] if place.seek == before else [replace(place, seek=before)]
                self._places[at : at + 1] = retry

    def _walk(self, place: _Place) -> Generator[_Decoded | Fault, None, None]:
        """Decode from a place on. Raises _Missed before anything is given.

        Packets that do not decode are told when the frames around them come: they are numbered in order of display.
        """
        av = load_av()
        course, key = replace(place.course), place.timestamp
        lost: list[tuple[int, str]] = []
        packets, end = 0, 0.0
        with self._open() as (container, stream):
            base = _base(stream)
            if place.seek is not None:
                container.seek(place.seek, stream=stream)
            by_decoding = container.format.name in DECODING_TIMES
            for packet in _packets(container, stream):
                if isinstance(packet, str):
                    yield Fault(course.index, course.time or 0.0, f"{self.path.name} {packet}")
                    break
                packets += packet.size > 0
                try:
                    frames = packet.decode()
                except av.error.FFmpegError as error:
                    why = _reason(error)
                    if packet.pts is not None:
                        heapq.heappush(lost, (packet.pts, why))
                    elif packet.size > 0 and key is None:
                        yield course.lost(why)
                    continue
                for frame in frames:
                    if key is not None:
                        if frame.pts is None or frame.pts < key:
                            continue
                        if frame.pts > key:
                            raise _Missed
                        lost = [each for each in lost if each[0] >= key]
                        key = None
                    while lost and frame.pts is not None and lost[0][0] < frame.pts:
                        timestamp, why = heapq.heappop(lost)
                        yield course.lost(why, float(timestamp * base))
                    if frame.key_frame and frame.pts is not None:
                        self._remember(_Place(frame.pts, replace(course), frame.pts))
                    end = max(end, float(frame.time or 0.0))
                    shown = frame.dts if by_decoding else frame.pts
                    time = None if shown is None else float(shown * base)
                    index, time, faults = course.take(time, upright_size(frame))
                    self._known = max(self._known, course.index)
                    yield from faults
                    if frame.is_corrupt:
                        yield Fault(index, time, f"frame {index} is damaged; it is given as the decoder mended it.")
                    yield _Decoded(index, time, frame)
            if key is not None:
                raise _Missed
            while lost:
                timestamp, why = heapq.heappop(lost)
                yield course.lost(why, float(timestamp * base))
            self._known = max(self._known, course.index)
            self._ended = True
            if place.timestamp is None and (promised := _cut_short(container, stream, packets, end, self.fps)):
                what = f"{self.path.name} was cut short: it says that it has {promised:.2f} s, and ends before."
                yield Fault(course.index, course.time or 0.0, what)

    def _remember(self, place: _Place) -> None:
        if place.course.index >= self._places[-1].course.index + PLACE_EVERY:
            self._places.append(place)

    def _given(self, seen: _Decoded | Fault) -> Frame | Fault:
        if isinstance(seen, Fault):
            return seen
        return Frame(seen.index, seen.time, fit(upright(seen.frame), self.size))

    @contextmanager
    def _open(self) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
        av = load_av()
        try:  # "file:" keeps FFmpeg from taking a name for an address, and from following one in a playlist
            container = av.open(f"file:{self.path.absolute()}")
        except av.error.FFmpegError as error:
            raise VideoError(
                f"{self.path}: no video that FFmpeg reads ({_reason(error)}); "
                "wanted a whole video file such as an MP4."
            ) from error
        with container:
            best = None if container.format.name in NO_VIDEO else container.streams.best("video")
            if best is None:
                raise VideoError(f"{self.path}: no video in it ({container.format.long_name}); wanted a video file.")
            yield container, best


def _packets(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[av.Packet[av.VideoStream] | str]:
    """Every packet of the stream; the reason, at the end, where the rest of the file cannot be read."""
    av = load_av()
    errors = 0
    while True:
        try:
            for packet in container.demux(stream):
                yield packet
                errors = 0
            return
        except av.error.FFmpegError as error:
            errors += 1
            if errors == MOST_READ_ERRORS:
                yield f"cannot be read any further ({_reason(error)}); what follows is left out."
                return


def _cut_short(
    container: av.container.InputContainer, stream: av.VideoStream, packets: int, end: float, fps: float
) -> float | None:
    """The seconds that the file says it has, where it ends earlier than that and with fewer frames than it says."""
    if stream.duration is not None:
        promised = float(stream.duration * _base(stream))
    elif container.duration is not None and len(container.streams) == 1:
        promised = container.duration / 1e6
    else:
        return None
    start = float((stream.start_time or 0) * _base(stream))
    slack = 1.5 / fps if stream.frames else 1.0
    short = packets < stream.frames if stream.frames else True
    return promised if short and end - start + 1 / fps + slack < promised else None


def _base(stream: av.VideoStream) -> Fraction:
    """Seconds in a unit of the stream's timestamps."""
    return stream.time_base or Fraction(1, 1)


def _reason(error: av.error.FFmpegError) -> str:
    return (error.strerror or str(error)).lower()


def _ahead(items: Generator[T, None, None]) -> Iterator[T]:
    """The same items, made in a thread that is a few of them ahead. It ends when the iterator is closed."""
    queue: Queue[tuple[T] | BaseException | None] = Queue(AHEAD)
    stop = Event()

    def put(item: tuple[T] | BaseException | None) -> None:
        while not stop.is_set():
            with suppress(Full):
                queue.put(item, timeout=0.1)
                return

    def work() -> None:
        try:
            with closing(items):
                for item in items:
                    put((item,))
                    if stop.is_set():
                        return
            put(None)
        except BaseException as error:  # it is the consumer's, whatever it is
            put(error)

    thread = Thread(target=work, name="pam-video", daemon=True)
    thread.start()
    try:
        while (got := queue.get()) is not None:
            if isinstance(got, BaseException):
                raise got
            yield got[0]
    finally:
        stop.set()
        thread.join(timeout=5)
