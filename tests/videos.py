"""Made-up videos: every picture carries its number in blocks that survive lossy codecs."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from pam_core.media.frame_sources import VideoFile
from pam_core.types import Picture
from pam_core.video import Fault, Frame

BITS = 12
BLOCK = 8
WIDTH, HEIGHT = BLOCK * BITS, 3 * BLOCK


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> Picture:
    """A grey picture whose first rows of blocks say its number."""
    picture = np.full((height, width, 3), 128, np.uint8)
    for bit in range(BITS):
        picture[: 2 * BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 if number >> bit & 1 else 0
    return picture


def number_of(picture: Picture) -> int:
    """The number that `numbered` put there."""
    blocks = picture[4 : 2 * BLOCK - 4].mean(axis=(0, 2))
    return sum((blocks[bit * BLOCK + 2 : (bit + 1) * BLOCK - 2].mean() > 128) << bit for bit in range(BITS))


def write_video(
    path: Path,
    pictures: Iterable[Picture] | int,
    codec: str = "mpeg4",
    *,
    milliseconds: Iterable[int] | None = None,
    fps: int = 25,
    gop: int = 12,
    rotation: int = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode pictures (or so many numbered ones), at these times or evenly. Sizes are even, as codecs want them."""
    pictures = map(numbered, range(pictures)) if isinstance(pictures, int) else pictures
    times = iter(milliseconds) if milliseconds is not None else None
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.codec_context.gop_size = gop
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if codec == "mpeg4":
            stream.codec_context.qmax = 4
        if codec == "libx264":
            stream.options = {"x264-params": f"keyint={gop}:scenecut=0:bframes=2"}
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for number, picture in enumerate(pictures):
            if not number:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number if times is None else next(times)
            frame.time_base = Fraction(1, fps) if times is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def told(items: Iterable[Frame | Fault]) -> tuple[list[Frame], list[Fault]]:
    """Frames and faults apart."""
    frames, faults = [], []
    for item in items:
        (frames if isinstance(item, Frame) else faults).append(item)
    return frames, faults


def numbers(source: VideoFile | Iterable[Frame | Fault]) -> list[int]:
    """The numbers that the pictures carry."""
    return [number_of(frame.picture) for frame in told(source)[0]]
