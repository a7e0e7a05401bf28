"""Masks, boxes and events of tracked objects as one JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pam_core.types import Region
from pam_core.video import FrameResult
from pam_plugins.files import Part
from pam_plugins.video_io.record import Replay, score

TRACKS_SCHEMA = "pam.tracks/1"


def write_tracks(replay: Replay, path: Path, about: Mapping[str, Any]) -> None:
    """One JSON file: `about` as `video`, and of each object its frames and events. Raises DatasetError.

    A frame is `{"frame", "time", "bbox": [x, y, width, height], "segmentation": COCO RLE, "score"}`, in pixels and
    counted from 0; frames without a mask of the object are left out. The record is read once for each object.
    """
    part = Part(path)
    head = {"schema": TRACKS_SCHEMA, "video": dict(about), "faults": [fault.to_json() for fault in replay.faults]}
    part.write(_json(head)[:-1] + ',"tracks":[')
    for number, track in enumerate(replay.tracks):
        events = [event.to_json() for event in replay.events.get(track, ())]
        part.write(("," if number else "") + _json({"id": track, "events": events})[:-1] + ',"frames":[')
        between = ""
        for frame in replay.frames():
            for region in frame.regions:
                if region.track_id == track and region.mask.area:
                    part.write(between + "\n" + _json(_track_frame(frame, region)))
                    between = ","
        part.write("]}")
    part.write("]}\n")
    part.finish()


def _track_frame(frame: FrameResult, region: Region) -> dict[str, Any]:
    x1, y1, x2, y2 = region.box
    return {
        "frame": frame.index,
        "time": frame.time,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "segmentation": region.mask.to_coco(),
        "score": score(region),
    }


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
