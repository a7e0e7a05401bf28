"""`Camera`: frames of a camera at this machine, as they come, for as long as they come."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from threading import Condition, Event, Thread

from pam_core.codec import load_av, upright
from pam_core.contracts import Picture
from pam_core.course import Course, fit
from pam_core.video import Fault, Frame, VideoError

RETRY = 0.5
"""Seconds between attempts to open a camera that went away."""
NOTHING_YET = 0.004
"""Seconds to wait where a camera has no new picture."""

Opener = Callable[[], Generator[Picture | None, None, None]]
"""Opens a camera: gives its pictures, and None, without waiting, where there is none yet. Closing lets go of it."""


class Camera:
    """The newest frame of a local camera, again and again: what the consumer is too slow for is dropped.

    `device` is a number, a path such as /dev/video0, or the system's name of the camera; never an address. Where no
    picture comes for `timeout` seconds, a Fault is given and the camera opened again, until pictures come again.
    Times are those of arrival. `dropped` counts the frames that were not given. Iterating raises VideoError where the
    camera cannot be opened in the first place.
    """

    size: None = None
    frames: None = None
    fps = 30.0

    def __init__(self, device: int | str | Path = 0, timeout: float = 5.0, opener: Opener | None = None) -> None:
        if "://" in str(device):
            raise VideoError(f"Got the address {device}; wanted a camera at this machine, such as 0 or /dev/video0.")
        self.device, self.timeout = device, timeout
        self.dropped = 0
        self._opener = opener or (lambda: _pictures(device))

    def __iter__(self) -> Iterator[Frame | Fault]:
        course = Course(self.fps)
        start = time.monotonic()
        reader = _Reader(self._opener)
        try:
            while True:
                got = reader.wait(self.timeout)
                self.dropped = reader.dropped
                if got is not None:
                    arrived, picture = got
                    index, now, faults = course.take(arrived, (int(picture.shape[1]), int(picture.shape[0])))
                    yield from faults
                    assert course.size is not None
                    yield Frame(index, now, fit(picture, course.size))
                elif reader.trouble and course.time is None:
                    raise VideoError(f"The camera {self.device} cannot be opened: {reader.trouble}.")
                else:
                    why = reader.trouble or f"no frame for {self.timeout:g} s"
                    what = f"the camera {self.device} stopped ({why}); it is opened again until frames come."
                    yield Fault(course.index, time.monotonic() - start, what)
        finally:
            reader.close()


class _Reader:
    """A thread that reads a camera and keeps the newest picture. It opens the camera again where it fails."""

    def __init__(self, opener: Opener) -> None:
        self.dropped = 0
        self.trouble = ""
        self._opener = opener
        self._newest: tuple[float, Picture] | None = None
        self._untold = False
        self._again = False
        self._closed = Event()
        self._changed = Condition()
        self._thread = Thread(target=self._work, name="pam-camera", daemon=True)
        self._thread.start()

    def wait(self, timeout: float) -> tuple[float, Picture] | None:
        """The newest picture and when it came; None where the camera fails or gives nothing for so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self._untold, timeout)
            newest, self._newest, self._untold = self._newest, None, False
            self._again = newest is None
            return newest

    def close(self) -> None:
        self._closed.set()
        self._thread.join(timeout=2)

    def _work(self) -> None:
        while not self._closed.is_set():
            trouble = "it gives no more frames"
            self._again = False
            try:
                with closing(self._opener()) as pictures:
                    for picture in pictures:
                        if self._closed.is_set():
                            return
                        if self._again:
                            trouble = ""
                            break
                        if picture is None:
                            time.sleep(NOTHING_YET)
                        else:
                            self._keep(picture)
            except Exception as error:  # drivers fail in every way; the session goes on
                trouble = str(error) or type(error).__name__
            with self._changed:
                self._untold = bool(trouble) and not self.trouble
                self.trouble = trouble
                self._changed.notify_all()
            self._closed.wait(RETRY)

    def _keep(self, picture: Picture) -> None:
        with self._changed:
            self.dropped += self._newest is not None
            self._newest = (time.monotonic(), picture)
            self.trouble = ""
            self._changed.notify_all()


def _pictures(device: int | str | Path) -> Generator[Picture | None, None, None]:
    av = load_av()
    name, driver = _device(device)
    try:
        container = av.open(name, format=driver, options={"fflags": "nonblock"})
    except av.error.FFmpegError as error:
        raise VideoError(f"{name} ({driver}): {error.strerror}; is there a camera, and may you use it?") from error
    with container:
        while True:
            try:
                for frame in container.decode(video=0):
                    yield upright(frame)
                return
            except BlockingIOError:
                yield None


def _device(device: int | str | Path) -> tuple[str, str]:
    """What FFmpeg calls the camera, and the driver that reads it."""
    system = platform.system()
    if system == "Darwin":
        return f"{device}:none", "avfoundation"
    if system == "Windows":
        if isinstance(device, int):
            cameras = [each.name for each in load_av("av.device").enumerate_input_devices("dshow")]
            if device >= len(cameras):
                raise VideoError(f"there is no camera {device}; there is {', '.join(cameras) or 'none'}")
            device = cameras[device]
        return f"video={device}", "dshow"
    return (f"/dev/video{device}" if isinstance(device, int) else str(device)), "v4l2"
