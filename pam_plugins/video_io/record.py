"""What was seen of a video, written and read: the record (JSON Lines), and what is made of it (MOT, tracks).

The record is written while the session runs and survives a crash. The other formats are made from it at the end, so
that they are in order of frames and whole, or not there at all; memory is a few bytes for each frame.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pam_core.errors import DatasetError, MaskError, PromptError, SchemaError
from pam_core.types import Region
from pam_core.video import VIDEO_SCHEMA, Fault, FrameResult, SessionResult, TrackEvent
from pam_plugins.files import Part

TRACKS_SCHEMA = "pam.tracks/1"


class Record:
    """A JSON Lines file, one thing seen a line, handed to the operating system at once: kill -9 leaves whole lines.

    An older record is replaced; a file that is something else is refused and left as it is. Raises DatasetError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                _refuse_other(path)
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise DatasetError(
                f"{path} cannot be written ({error.strerror}); choose another --out or mend its permissions."
            ) from error

    def write(self, seen: SessionResult) -> None:
        """Add a line. Where that fails, nothing of it stays in the file."""
        line = json.dumps(seen.to_json(), ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"
        offset = self._file.tell()
        try:
            view = memoryview(line.encode(errors="backslashreplace"))
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(offset)
            raise DatasetError(
                f"{self.path} cannot be written ({error.strerror}); what was seen until now is in it. Make room."
            ) from error

    def close(self) -> None:
        self._file.close()


def _refuse_other(path: Path) -> None:
    begin = f'{{"schema":"{VIDEO_SCHEMA}"'.encode()
    with path.open("rb") as file:
        found = file.read(len(begin))
    if not begin.startswith(found):
        raise DatasetError(f"{path} is there and no record of a video; choose another --out (nothing was changed).")


def read_record(path: Path) -> Iterator[SessionResult]:
    """What is in a record, in the order in which it was known; a last line cut short is left out.

    Raises SchemaError with the line's number.
    """
    return (seen for _, seen in _lines(path))


def _lines(path: Path) -> Iterator[tuple[int, SessionResult]]:
    """Where in the file each line begins, and what it says."""
    offset = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield offset, _from_line(line)
            except SchemaError as error:
                raise SchemaError(f"{path}, line {number}: {error}") from error
            offset += len(line)


def _from_line(line: bytes) -> SessionResult:
    try:
        data = json.loads(line)
        schema, kind = data.pop("schema"), data.pop("kind")
        if schema != VIDEO_SCHEMA:
            raise SchemaError(f"Got {schema!r}; wanted {VIDEO_SCHEMA!r}.")
        if kind == "frame":
            regions = tuple(Region.from_json(region) for region in data["regions"])
            return FrameResult(data["index"], data["time"], regions)
        return {"event": TrackEvent, "fault": Fault}[kind](**data)
    except (SchemaError, PromptError, MaskError):
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise SchemaError(f"This is nothing that was seen in a video ({error!r}).") from error


class Replay:
    """A record put in order: of each frame the regions of every line about it, events by object.

    `tracks` are the ids of the objects, `events` those of each object in order, `faults` all of them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tracks: list[int] = []
        self.events: dict[int, list[TrackEvent]] = {}
        self.faults: list[Fault] = []
        self._offsets: dict[int, tuple[int, ...]] = {}
        tracks: set[int] = set()
        for offset, seen in _lines(path):
            if isinstance(seen, FrameResult):
                self._offsets[seen.index] = (*self._offsets.get(seen.index, ()), offset)
                tracks.update(region.track_id for region in seen.regions if region.track_id is not None)
            elif isinstance(seen, TrackEvent):
                self.events.setdefault(seen.track_id, []).append(seen)
            else:
                self.faults.append(seen)
        self.tracks = sorted(tracks | set(self.events))
        for events in self.events.values():
            events.sort(key=lambda event: (event.first, event.last))

    @property
    def span(self) -> tuple[int, int] | None:
        """The first and the last frame that was seen."""
        return (min(self._offsets), max(self._offsets)) if self._offsets else None

    def frames(self) -> Iterator[FrameResult]:
        """Every frame once, in order."""
        with self.path.open("rb") as file:
            for index in sorted(self._offsets):
                lines: list[FrameResult] = []
                for offset in self._offsets[index]:
                    file.seek(offset)
                    seen = _from_line(file.readline())
                    assert isinstance(seen, FrameResult)
                    lines.append(seen)
                yield _merged(lines)

    def captions(self, index: int) -> dict[int, Mapping[str, str]]:
        """What each object does on a frame, by language; where two events meet, the later one."""
        found = {}
        for track, events in self.events.items():
            begun = bisect_right(events, index, key=lambda event: event.first)
            if begun and index <= events[begun - 1].last and events[begun - 1].texts:
                found[track] = events[begun - 1].texts
        return found


def _merged(lines: Sequence[FrameResult]) -> FrameResult:
    """One frame of several lines about it: of each object the last that was said."""
    regions = {region.track_id: region for line in lines for region in line.regions}
    ordered = sorted(regions.values(), key=lambda region: (region.track_id is None, region.track_id or 0))
    return FrameResult(lines[0].index, lines[0].time, tuple(ordered))


def write_mot(replay: Replay, path: Path) -> None:
    """MOT Challenge text: `frame,id,x,y,width,height,score,-1,-1,-1`, frames and pixels counted from 1.

    A line for each object where it is seen; `score` is the probability that it is there. Raises OSError.
    """
    part = Part(path)
    for frame in replay.frames():
        for region in frame.regions:
            if region.track_id is not None and region.mask.area:
                x1, y1, x2, y2 = region.box
                box = f"{x1 + 1:g},{y1 + 1:g},{x2 - x1:g},{y2 - y1:g}"
                part.write(f"{frame.index + 1},{region.track_id},{box},{_score(region):.4f},-1,-1,-1\n")
    part.finish()


def write_tracks(replay: Replay, path: Path, about: Mapping[str, Any]) -> None:
    """One JSON file: `about` as `video`, and of each object its frames and events. Raises OSError.

    A frame is `{"frame", "time", "bbox": [x, y, width, height], "segmentation": COCO RLE, "score"}`, in pixels and
    counted from 0; frames where the object is not seen are left out. The record is read once for each object.
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
        "score": _score(region),
    }


def _score(region: Region) -> float:
    known = (score for score in (region.presence, region.predicted_iou) if score is not None)
    return next(known, 1.0)


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
