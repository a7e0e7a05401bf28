"""`Camera`: live frames of a camera at this machine."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from threading import Condition, Event, Thread

from pam_core.errors import VideoError, VideoReadError
from pam_core.media.frame_clock import FrameClock, fit
from pam_core.media.pyav import load_av, upright
from pam_core.types import Picture
from pam_core.video import Fault, Frame

RETRY = 0.5
"""Seconds between attempts to open a camera that failed."""
POLL = 0.004
"""Seconds between reads where a driver does not wait for a new picture."""
MOST_READERS = 3
"""Threads that read one camera. A driver may never return from a read, and then only a new thread helps."""

Opener = Callable[[], Generator[Picture, None, None]]
"""Opens a camera and yields its pictures; may block. Closing it releases the camera."""


class Camera:
    """The newest frame of a local camera, again and again: frames that the consumer is too slow for are dropped.

    `device` is a number, a path such as /dev/video0, or the system's name of the camera; never an address. Where no
    picture arrives for `timeout` seconds, a Fault is yielded and the camera opened again, until pictures arrive.
    Timestamps are those of arrival. `dropped` counts the dropped frames. Raises VideoError for an address and
    MissingExtraError without PyAV; iterating raises VideoReadError where the camera cannot be opened at first.
    """

    size: None = None
    frames: None = None
    fps = 30.0

    def __init__(self, device: int | str | Path = 0, timeout: float = 5.0, opener: Opener | None = None) -> None:
        if "://" in str(device):
            raise VideoError(f"Got the address {device}; wanted a camera at this machine, such as 0 or /dev/video0.")
        if opener is None:
            load_av()  # a missing package is no fault of the camera, and would be one in the reader's thread
        self.device, self.timeout = device, timeout
        self.dropped = 0
        self._opener = opener or (lambda: _pictures(device))

    def __iter__(self) -> Iterator[Frame | Fault]:
        clock = FrameClock(self.fps)
        start = time.monotonic()
        readers = [_Reader(self._opener)]
        try:
            while True:
                reader = readers[-1]
                newest, dropped = reader.wait(self.timeout)
                self.dropped += dropped
                if newest is not None:
                    arrived, picture = newest
                    index, now, faults = clock.stamp(arrived, (int(picture.shape[1]), int(picture.shape[0])))
                    yield from faults
                    assert clock.size is not None
                    yield Frame(index, now, fit(picture, clock.size))
                    continue
                if reader.failure and clock.time is None:
                    raise VideoReadError(f"The camera {self.device} cannot be opened: {reader.failure}.")
                why = reader.failure or f"no frame for {self.timeout:g} s"
                what = f"the camera {self.device} stopped ({why}); it is opened again until frames come."
                yield Fault(clock.index, time.monotonic() - start, what)
                readers = [each for each in readers if each.is_alive()]
                if not reader.failure and len(readers) < MOST_READERS:
                    reader.close()
                    readers.append(_Reader(self._opener))
        finally:
            for reader in readers:
                reader.close()
            readers[-1].join(timeout=1)


class _Reader(Thread):
    """A thread that reads a camera, keeps the newest picture, and opens the camera again where it fails."""

    def __init__(self, opener: Opener) -> None:
        super().__init__(name="pam-camera", daemon=True)
        self.failure = ""
        self._opener = opener
        self._newest: tuple[float, Picture] | None = None
        self._dropped = 0
        self._unreported = False
        self._closed = Event()
        self._changed = Condition()
        self.start()

    def wait(self, timeout: float) -> tuple[tuple[float, Picture] | None, int]:
        """The newest picture with its time of arrival, and how many were dropped since the last call.

        No picture where the camera fails, and where none arrives for `timeout` seconds.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._unreported, timeout)
            newest, dropped = self._newest, self._dropped
            self._newest, self._dropped, self._unreported = None, 0, False
            return newest, dropped

    def close(self) -> None:
        """Release the camera as soon as it gives a picture or fails."""
        self._closed.set()

    def run(self) -> None:
        while not self._closed.is_set():
            failure = "it gives no more frames"
            try:
                with closing(self._opener()) as pictures:
                    for picture in pictures:
                        if self._closed.is_set():
                            return
                        self._keep(picture)
            except Exception as error:  # drivers fail in every way; the session continues
                failure = str(error) or type(error).__name__
            with self._changed:
                self._unreported = not self.failure
                self.failure = failure
                self._changed.notify_all()
            self._closed.wait(RETRY)

    def _keep(self, picture: Picture) -> None:
        with self._changed:
            self._dropped += self._newest is not None
            self._newest = (time.monotonic(), picture)
            self.failure = ""
            self._changed.notify_all()


def _pictures(device: int | str | Path) -> Generator[Picture, None, None]:
    av = load_av()
    name, driver = _device(device)
    try:
        container = av.open(name, format=driver)
    except av.error.FFmpegError as error:
        raise VideoReadError(
            f"{name} ({driver}): {error.strerror} (is there a camera, and may you use it?)"
        ) from error
    with container:
        while True:
            try:
                for frame in container.decode(video=0):
                    yield upright(frame)
                return
            except BlockingIOError:  # some drivers do not wait
                time.sleep(POLL)


def _device(device: int | str | Path) -> tuple[str, str]:
    """What FFmpeg calls the camera, and the driver that reads it."""
    system = platform.system()
    if system == "Darwin":
        return f"{device}:none", "avfoundation"
    if system == "Windows":
        if isinstance(device, int):
            cameras = [each.name for each in load_av("av.device").enumerate_input_devices("dshow")]
            if device >= len(cameras):
                raise VideoReadError(f"there is no camera {device}; there is {', '.join(cameras) or 'none'}")
            device = cameras[device]
        return f"video={device}", "dshow"
    return (f"/dev/video{device}" if isinstance(device, int) else str(device)), "v4l2"
