"""PyAV, where it is installed: opening local videos and cameras, and decoded frames as upright RGB arrays."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from pam_core.errors import needs_extra
from pam_core.types import Picture

if TYPE_CHECKING:
    import av


def load_av(module: str = "av") -> Any:
    """The module `av`, or one in it. Raises MissingExtraError where it is not installed."""
    with needs_extra("video", "Reading or writing a video"):
        return import_module(module)


def upright(frame: av.VideoFrame) -> Picture:
    """A decoded frame as uint8 RGB (height, width, 3), its rotation applied."""
    picture = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    return np.ascontiguousarray(np.rot90(picture, quarter_turns(frame)))


def quarter_turns(frame: av.VideoFrame) -> int:
    """How often the frame is to be turned by 90 degrees, counterclockwise, to be upright: 0 to 3."""
    return round(frame.rotation / 90) % 4


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Width and height once the frame is upright."""
    return (frame.height, frame.width) if quarter_turns(frame) % 2 else (frame.width, frame.height)
