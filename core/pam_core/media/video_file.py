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

from pam_core.errors import VideoReadError
from pam_core.media.frame_clock import DEFAULT_FPS, FrameClock, fit
from pam_core.media.pyav import load_av, upright, upright_size
from pam_core.video import Fault, Frame

if TYPE_CHECKING:
    import av

AHEAD = 4
"""Frames decoded ahead of need."""
BACKWARD_BYTES = 200_000_000
"""Pictures held at once while reading backward; a keyframe interval that is larger is decoded several times."""
KEYFRAME_DISTANCE = 16
"""Frames between the keyframes that are kept for reading backward, at least."""
MOST_READ_ERRORS = 100
"""Read errors in a row before the rest of the file is given up."""
NO_VIDEO = frozenset({"tty"})
"""Formats that FFmpeg detects in any text."""
DECODING_TIMES = frozenset({"avi"})
"""Containers whose only timestamps are those of decoding; these rise by what the frames, once in order, rise by."""

T = TypeVar("T")


@dataclass(frozen=True)
class _Decoded:
    index: int
    time: float
    frame: av.VideoFrame


@dataclass(frozen=True)
class _Keyframe:
    """A keyframe where decoding can begin: its timestamp, and the clock before it.

    `seek` is the timestamp to seek to: some containers seek past the keyframe with that timestamp.
    """

    timestamp: int | None
    clock: FrameClock
    seek: int | None = None


class _SeekError(Exception):
    """Seeking led past the keyframe."""


class VideoFile:
    """Frames of a video file in any codec that PyAV reads. Iterating again starts over.

    Pictures are upright, RGB uint8 (height, width, 3); times are the file's timestamps, from 0 at the first frame. A
    frame that does not decode is a Fault and keeps its index; so is a file cut short, a time that does not rise (it
    is computed from the frame rate) and a change of size (frames are scaled to the size of the first). Memory is a
    few frames forward and 200 MB backward, plus some bytes for each keyframe.

    `fps` is the average rate, `size` (width, height), `frames` how many the file declares, None where it does not.
    Raises VideoReadError where the file cannot be read as a video, MissingExtraError without PyAV. Only local files
    are opened, whatever they refer to.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            what = "a folder" if self.path.is_dir() else "no such file"
            raise VideoReadError(f"{self.path}: {what}; wanted a video file such as an MP4.")
        with self._open() as (container, stream):
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            self.fps = rate if 0 < rate <= 1000 else DEFAULT_FPS
            self.frames: int | None = stream.frames or None
            start = FrameClock(self.fps, even=stream.average_rate == stream.base_rate)
            start.untimed = container.format.name in DECODING_TIMES  # the last few have none
        self._keyframes = [_Keyframe(None, start)]
        self._frames_decoded = 0
        self._ended = False
        with closing(self._decode(self._keyframes[0])) as decoded:
            first = next((item for item in decoded if isinstance(item, _Decoded)), None)
        if first is None:
            raise VideoReadError(f"{self.path}: no frame of it can be decoded; get the file again, or convert it.")
        self.size = upright_size(first.frame)

    def __iter__(self) -> Iterator[Frame | Fault]:
        return _read_ahead(self._frame(item) for item in self._decode(self._keyframes[0]))

    def reversed_from(self, index: int | None = None) -> Iterator[Frame | Fault]:
        """The frames from `index` (the last if None) to 0. The file is decoded up to `index` once before that."""
        return _read_ahead(self._backward(index))

    def _backward(self, index: int | None) -> Generator[Frame | Fault, None, None]:
        upper = self._index_keyframes(index)
        while upper > 0:
            held = max(1, BACKWARD_BYTES // (3 * self.size[0] * self.size[1]))
            lower = max(self._keyframe(upper - 1).clock.index, upper - held)
            chunk: list[Frame | Fault] = []
            with closing(self._decode_from(lower)) as decoded:
                for item in decoded:
                    if item.index >= upper:
                        break
                    if item.index >= lower:
                        chunk.append(self._frame(item))
            while chunk:
                yield chunk.pop()
            upper = lower

    def _index_keyframes(self, index: int | None) -> int:
        """Decode until the keyframes up to `index` are known; returns one past the last frame up to `index`."""
        if not self._ended and (index is None or self._frames_decoded <= index):
            with closing(self._decode_from(self._frames_decoded)) as decoded:
                for item in decoded:
                    if index is not None and item.index > index:
                        break
        return self._frames_decoded if index is None else min(index + 1, self._frames_decoded)

    def _keyframe(self, index: int) -> _Keyframe:
        return next(keyframe for keyframe in reversed(self._keyframes) if keyframe.clock.index <= index)

    def _decode_from(self, index: int) -> Generator[_Decoded | Fault, None, None]:
        """Decode from the last known keyframe at or before `index`."""
        while True:
            keyframe = self._keyframe(index)
            try:
                yield from self._decode(keyframe)
                return
            except _SeekError:
                at = self._keyframes.index(keyframe)
                before = self._keyframes[at - 1].timestamp
                retry = [] if keyframe.seek == before else [replace(keyframe, seek=before)]
                self._keyframes[at : at + 1] = retry

    def _decode(self, keyframe: _Keyframe) -> Generator[_Decoded | Fault, None, None]:
        """Decode from a keyframe on. Raises _SeekError before anything is yielded.

        The fault of a packet that does not decode is yielded between the frames around it, in order of display.
        """
        av = load_av()
        clock, key = replace(keyframe.clock), keyframe.timestamp
        undecoded: list[tuple[int, str]] = []
        packets, end = 0, 0.0
        with self._open() as (container, stream):
            base = _base(stream)
            if keyframe.seek is not None:
                container.seek(keyframe.seek, stream=stream)
            by_decoding = container.format.name in DECODING_TIMES
            for packet in _packets(container, stream):
                if isinstance(packet, str):
                    yield Fault(clock.index, clock.time or 0.0, f"{self.path.name} {packet}")
                    break
                packets += packet.size > 0
                try:
                    frames = packet.decode()
                except av.error.FFmpegError as error:
                    why = _reason(error)
                    if packet.pts is not None:
                        heapq.heappush(undecoded, (packet.pts, why))
                    elif packet.size > 0 and key is None:
                        yield clock.skip(why)
                    continue
                for frame in frames:
                    if key is not None:
                        if frame.pts is None or frame.pts < key:
                            continue
                        if frame.pts > key:
                            raise _SeekError
                        undecoded = [each for each in undecoded if each[0] >= key]
                        key = None
                    while undecoded and frame.pts is not None and undecoded[0][0] < frame.pts:
                        timestamp, why = heapq.heappop(undecoded)
                        yield clock.skip(why, float(timestamp * base))
                    if frame.key_frame and frame.pts is not None:
                        self._add_keyframe(_Keyframe(frame.pts, replace(clock), frame.pts))
                    end = max(end, float(frame.time or 0.0))
                    shown = frame.dts if by_decoding else frame.pts
                    time = None if shown is None else float(shown * base)
                    index, time, faults = clock.stamp(time, upright_size(frame))
                    self._frames_decoded = max(self._frames_decoded, clock.index)
                    yield from faults
                    if frame.is_corrupt:
                        yield Fault(index, time, f"frame {index} is damaged; it is given as the decoder mended it.")
                    yield _Decoded(index, time, frame)
            if key is not None:
                raise _SeekError
            while undecoded:
                timestamp, why = heapq.heappop(undecoded)
                yield clock.skip(why, float(timestamp * base))
            self._frames_decoded = max(self._frames_decoded, clock.index)
            self._ended = True
            if keyframe.timestamp is None and (declared := _cut_short(container, stream, packets, end, self.fps)):
                what = f"{self.path.name} was cut short: it says that it has {declared:.2f} s, and ends before."
                yield Fault(clock.index, clock.time or 0.0, what)

    def _add_keyframe(self, keyframe: _Keyframe) -> None:
        if keyframe.clock.index >= self._keyframes[-1].clock.index + KEYFRAME_DISTANCE:
            self._keyframes.append(keyframe)

    def _frame(self, item: _Decoded | Fault) -> Frame | Fault:
        if isinstance(item, Fault):
            return item
        return Frame(item.index, item.time, fit(upright(item.frame), self.size))

    @contextmanager
    def _open(self) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
        av = load_av()
        try:  # "file:" keeps FFmpeg from taking a name for an address, and from following one in a playlist
            container = av.open(f"file:{self.path.absolute()}")
        except av.error.FFmpegError as error:
            raise VideoReadError(
                f"{self.path}: no video that FFmpeg reads ({_reason(error)}); "
                "wanted a whole video file such as an MP4."
            ) from error
        with container:
            best = None if container.format.name in NO_VIDEO else container.streams.best("video")
            if best is None:
                raise VideoReadError(
                    f"{self.path}: no video in it ({container.format.long_name}); wanted a video file."
                )
            yield container, best


def _packets(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[av.Packet[av.VideoStream] | str]:
    """Every packet of the stream; a sentence at the end where the rest of the file cannot be read."""
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
    """The seconds that the file declares, where it ends earlier and with fewer frames than declared."""
    if stream.duration is not None:
        declared = float(stream.duration * _base(stream))
    elif container.duration is not None and len(container.streams) == 1:
        declared = container.duration / 1e6
    else:
        return None
    start = float((stream.start_time or 0) * _base(stream))
    slack = 1.5 / fps if stream.frames else 1.0
    short = packets < stream.frames if stream.frames else True
    return declared if short and end - start + 1 / fps + slack < declared else None


def _base(stream: av.VideoStream) -> Fraction:
    """Seconds in a unit of the stream's timestamps."""
    return stream.time_base or Fraction(1, 1)


def _reason(error: av.error.FFmpegError) -> str:
    return (error.strerror or str(error)).lower()


def _read_ahead(items: Generator[T, None, None]) -> Iterator[T]:
    """The same items, made by a thread that is a few of them ahead. It ends when the iterator is closed."""
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
