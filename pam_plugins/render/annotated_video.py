"""An annotated MP4: every frame with masks, boxes and track ids on it, and the captions at the bottom."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.ImageFont import FreeTypeFont

from pam_core.contracts import FrameSource
from pam_core.media.pyav import load_av
from pam_core.types import Picture, Region, Texts
from pam_core.video import Fault, Frame, FrameResult, SessionResult, TrackEvent
from pam_plugins.files import explained
from pam_plugins.render import overlay, palette
from pam_plugins.video_io.record import Replay

ENCODERS = ("libx264", "libopenh264", "mpeg4")
"""In order of preference; H.264 plays everywhere."""
KEPT = 64
"""Frames of a live source that wait for their results, at most."""

Captions = Mapping[int, Mapping[str, str]]
"""The captions of objects, by track id and language."""


class AnnotatedVideo:
    """Writes an MP4 frame by frame, beside `path`; `close` puts it in its place, `drop` leaves nothing.

    Frames keep their times. Sides that are odd get one more row or column, as encoders want them. Memory does not
    grow. `without_font` is set where a caption was left out because no font here has its characters.
    Raises DatasetError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.without_font = False
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")
        with explained(path):
            self._part.open("wb").close()  # FFmpeg would not say why it cannot
        self._container: Any = load_av().open(f"file:{self._part.absolute()}", "w", format="mp4")
        self._stream: Any = None
        self._last = -1

    def write(self, frame: Frame, regions: Sequence[Region], captions: Captions) -> None:
        """Add a frame, later than the one before."""
        av = load_av()
        texts = [text for each in captions.values() for text in each.values()]
        self.without_font |= any(_font(12, overlay.is_cjk(text)) is None for text in texts)
        picture = _even(annotated(frame.picture, regions, captions))
        image = av.VideoFrame.from_ndarray(picture, format="rgb24")
        image.time_base = Fraction(1, 1000)
        image.pts = self._last = max(self._last + 1, round(frame.time * 1000))
        with explained(self.path):
            if self._stream is None:
                self._stream = self._begin(picture)
            self._container.mux(self._stream.encode(image))

    def _begin(self, picture: Picture) -> Any:
        encoder = next(name for name in ENCODERS if _available(name))
        stream = self._container.add_stream(encoder, rate=25)
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        if encoder == "libx264":
            stream.options = {"preset": "veryfast"}  # encoding takes most of the time otherwise
        if encoder == "mpeg4":
            stream.codec_context.qmax = 6
        return stream

    def close(self) -> None:
        """Finish the file; where no frame was written, there is none. A second call does nothing."""
        if self._container is None:
            return
        try:
            if self._stream is not None:
                with explained(self.path):
                    self._container.mux(self._stream.encode())
                    self._container.close()
                    self._part.replace(self.path)
        finally:
            self.drop()

    def drop(self) -> None:
        """Leave nothing of a file that is not finished."""
        container, self._container = self._container, None
        with suppress(Exception):  # it may have failed before, and goes anyway
            container.close()
        with suppress(OSError):
            self._part.unlink(missing_ok=True)


def _available(encoder: str) -> bool:
    av = load_av()
    try:
        av.Codec(encoder, "w")
    except av.error.FFmpegError:
        return False
    return True


def write_annotated(
    path: Path, source: FrameSource, replay: Replay, advance: Callable[[], None] = lambda: None
) -> bool:
    """The frames of a recorded source from the first to the last in the record, with captions at their time.

    Calls `advance` after each frame. Returns whether captions were left out for want of a font. Raises DatasetError.
    """
    span = replay.span
    frames = replay.frames()
    upcoming = next(frames, None)
    video = AnnotatedVideo(path)
    try:
        for item in source:
            if span is None or item.index > span[1]:
                break
            if isinstance(item, Fault) or item.index < span[0]:
                continue
            while upcoming is not None and upcoming.index < item.index:
                upcoming = next(frames, None)
            here = upcoming is not None and upcoming.index == item.index
            video.write(item, upcoming.regions if upcoming and here else (), replay.captions(item.index))
            advance()
        video.close()
    finally:
        video.drop()
    return video.without_font


class LiveVideo:
    """The annotated video of a source that cannot be read again. A session reads the source through it.

    An object's caption is that of its latest event that is over.
    """

    def __init__(self, path: Path, source: FrameSource) -> None:
        self._source = source
        self._video = AnnotatedVideo(path)
        self._kept: deque[Frame] = deque(maxlen=KEPT)
        self._captions: dict[int, Mapping[str, str]] = {}
        self.close, self.drop = self._video.close, self._video.drop

    def __iter__(self) -> Iterator[Frame | Fault]:
        for item in self._source:
            if isinstance(item, Frame):
                self._kept.append(item)
            yield item

    def add(self, result: SessionResult) -> None:
        """Write the frame of a result, or keep a caption for the frames to come. Raises DatasetError."""
        if isinstance(result, TrackEvent) and result.texts:
            self._captions[result.track_id] = result.texts
        while isinstance(result, FrameResult) and self._kept and self._kept[0].index <= result.index:
            frame = self._kept.popleft()
            if frame.index == result.index:
                tracked = {region.track_id for region in result.regions}
                self._captions = {track: texts for track, texts in self._captions.items() if track in tracked}
                self._video.write(frame, result.regions, self._captions)

    @property
    def without_font(self) -> bool:
        """Whether captions were left out for want of a font."""
        return self._video.without_font


def annotated(picture: Picture, regions: Sequence[Region], captions: Captions) -> Picture:
    """A copy of the picture with masks, boxes and track ids, and the captions burnt in at the bottom."""
    import cv2

    present = [region for region in regions if region.mask.area]
    named = [replace(region, prompt=None, scores={}, texts=_name(region)) for region in present]
    scene = overlay.draw(picture, named)
    line = overlay.line_thickness(picture.shape[1], picture.shape[0])
    for index, region in enumerate(present):
        x1, y1, x2, y2 = (int(side) for side in region.box)
        cv2.rectangle(scene, (x1, y1), (x2 - 1, y2 - 1), _rgb(palette.colour_of(region, index)), line)
    return _burn(scene, captions)


def _name(region: Region) -> Texts:
    track = "" if region.track_id is None else f"#{region.track_id} "
    return {"label": {"en": (track + (region.label or "")).strip()}}


def _burn(picture: Picture, captions: Captions) -> Picture:
    """Captions line by line over a dark ground, the number of the object before them, in its colour.

    They take at most half of the picture; the rest is cut. Where no font has the letters of a text, it is left out.
    """
    height, width = picture.shape[:2]
    size = overlay.font_size(width, height)
    step, margin = round(size * 1.35), round(size * 0.5)
    lines: list[tuple[str, str, Any]] = []
    for track, texts in sorted(captions.items()):
        colour = palette.COLOURS[track % len(palette.COLOURS)]
        for text in filter(None, map(overlay.one_line, texts.values())):
            if (font := _font(size, overlay.is_cjk(text))) is not None:
                lines += [(line, colour, font) for line in _wrapped(f"#{track} {text}", font, width - 2 * margin)]
    lines = lines[: max(1, (height // 2 - margin) // step)]
    if not lines:
        return picture
    top = height - len(lines) * step - margin
    scene = picture.copy()
    scene[max(top, 0) :] = scene[max(top, 0) :] // 4
    image = Image.fromarray(scene)
    draw = ImageDraw.Draw(image)
    for number, (line, colour, font) in enumerate(lines):
        draw.text((margin, top + margin // 2 + number * step), line, fill=colour, font=font)
    return np.array(image)


@lru_cache(maxsize=8)
def _font(size: int, cjk: bool) -> FreeTypeFont | None:
    """Pillow's own font; for Chinese that of `overlay.cjk_font`, or None."""
    if not cjk:
        return cast(FreeTypeFont, ImageFont.load_default(size))
    path = overlay.cjk_font()
    return None if path is None else ImageFont.truetype(path, size)


@lru_cache(maxsize=64)
def _wrapped(text: str, font: FreeTypeFont, limit: float) -> list[str]:
    """The text in lines no longer than `limit` pixels, broken between words, and between Chinese characters."""
    lines = [""]
    for part in re.findall(r"[\u2e80-\uffef]|[^\s\u2e80-\uffef]+|\s+", text):
        if lines[-1] and font.getlength((lines[-1] + part).rstrip()) > limit:
            lines.append("")
        lines[-1] += part if lines[-1] else part.lstrip()
    return [line.rstrip() for line in lines if line.strip()]


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _even(picture: Picture) -> Picture:
    """The picture with its last row or column repeated where there is an odd number of them."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
