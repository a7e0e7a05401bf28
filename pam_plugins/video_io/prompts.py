"""Prompts for a video: which object, on which frame, and where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from pam_core.errors import MaskError, PromptError
from pam_core.types import Prompt


class VideoPrompt(NamedTuple):
    """An object's id, where it is, and on which frame that is; None is the first frame that comes."""

    track_id: int
    prompt: Prompt
    frame: int | None = None


def read_video_prompts(path: Path) -> list[VideoPrompt]:
    """Prompts from a JSON Lines file.

    A line is `{"track": 1, "frame": 0, "points": [[x, y], [x, y, 0]], "box": [x1, y1, x2, y2], "mask": {COCO RLE}}`;
    `frame` may be left out, other fields are ignored. Several lines of one track correct it. Raises PromptError with
    the line's number.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"{path}: cannot be read ({error}); wanted a JSON Lines file of prompts.") from error
    prompts = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
            track, frame = data.get("track"), data.get("frame")
            if not _count(track):
                raise PromptError(f'got the track {track!r}; wanted "track", a number from 0, in each line.')
            if frame is not None and not _count(frame):
                raise PromptError(f"got the frame {frame!r}; wanted a number from 0.")
            prompts.append(VideoPrompt(track, Prompt.from_json(data), frame))
        except (PromptError, MaskError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise PromptError(f"{path}, line {number}: {error}") from error
    if not prompts:
        raise PromptError(f"{path} holds no prompt; wanted at least one line with points, a box or a mask.")
    return prompts


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
