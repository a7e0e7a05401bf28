"""Boxes of tracked objects as MOT Challenge text."""

from __future__ import annotations

from pathlib import Path

from pam_plugins.files import Part
from pam_plugins.video_io.record import Replay, score


def write_mot(replay: Replay, path: Path) -> None:
    """MOT Challenge text: `frame,id,x,y,width,height,score,-1,-1,-1`, frames and pixels counted from 1.

    A line for each object and frame with a mask; `score` is the probability that it is there. Raises DatasetError.
    """
    part = Part(path)
    for frame in replay.frames():
        for region in frame.regions:
            if region.track_id is not None and region.mask.area:
                x1, y1, x2, y2 = region.box
                box = f"{x1 + 1:g},{y1 + 1:g},{x2 - x1:g},{y2 - y1:g}"
                part.write(f"{frame.index + 1},{region.track_id},{box},{score(region):.4f},-1,-1,-1\n")
    part.finish()
