"""The record of a video session (JSON Lines), and its replay in the order of frames.

The record is written while the session runs and survives a crash. Other formats are made from its replay at the end,
so that they are in order and complete, or not there at all; memory is a few bytes for each frame.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pam_core.errors import DatasetError, MaskError, PromptError, SchemaError
from pam_core.types import Region
from pam_core.video import VIDEO_SCHEMA, Fault, FrameResult, SessionResult, TrackEvent
from pam_plugins.files import append, make_folder


class Record:
    """A JSON Lines file, a result a line, given to the operating system at once: kill -9 leaves complete lines.

    An older record is replaced; a file of another kind is refused and not changed. Raises DatasetError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        make_folder(path.parent)
        try:
            if path.exists():
                _refuse_other(path)
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise DatasetError(
                f"{path} cannot be written ({error.strerror}); choose another file, or mend its permissions."
            ) from error

    def write(self, result: SessionResult) -> None:
        """Append a line. Where that fails, nothing of it stays in the file."""
        line = json.dumps(result.to_json(), ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"
        append(self.path, self._file, line.encode(errors="backslashreplace"))

    def close(self) -> None:
        self._file.close()


def _refuse_other(path: Path) -> None:
    begin = f'{{"schema":"{VIDEO_SCHEMA}"'.encode()
    with path.open("rb") as file:
        start = file.read(len(begin))
    if not begin.startswith(start):
        raise DatasetError(f"{path} is there and no record of a video; choose another file (nothing was changed).")


def read_record(path: Path) -> Iterator[SessionResult]:
    """The results in a record, in the order they were written in; an incomplete last line is left out.

    Raises SchemaError with the line's number.
    """
    return (result for _, result in _lines(path))


def _lines(path: Path) -> Iterator[tuple[int, SessionResult]]:
    """The offset and the result of each line."""
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
        raise SchemaError(f"Got no result of a video session ({error!r}).") from error


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
        for offset, result in _lines(path):
            if isinstance(result, FrameResult):
                self._offsets[result.index] = (*self._offsets.get(result.index, ()), offset)
                tracks.update(region.track_id for region in result.regions if region.track_id is not None)
            elif isinstance(result, TrackEvent):
                self.events.setdefault(result.track_id, []).append(result)
            else:
                self.faults.append(result)
        self.tracks = sorted(tracks | set(self.events))
        for events in self.events.values():
            events.sort(key=lambda event: (event.first, event.last))

    @property
    def span(self) -> tuple[int, int] | None:
        """The first and the last frame index."""
        return (min(self._offsets), max(self._offsets)) if self._offsets else None

    def frames(self) -> Iterator[FrameResult]:
        """Every frame once, in order."""
        with self.path.open("rb") as file:
            for index in sorted(self._offsets):
                lines: list[FrameResult] = []
                for offset in self._offsets[index]:
                    file.seek(offset)
                    result = _from_line(file.readline())
                    assert isinstance(result, FrameResult)
                    lines.append(result)
                yield _merged(lines)

    def captions(self, index: int) -> dict[int, Mapping[str, str]]:
        """The captions of objects on a frame, by language; where two events overlap, the later one's."""
        captions = {}
        for track, events in self.events.items():
            begun = bisect_right(events, index, key=lambda event: event.first)
            if begun and index <= events[begun - 1].last and events[begun - 1].texts:
                captions[track] = events[begun - 1].texts
        return captions


def _merged(lines: Sequence[FrameResult]) -> FrameResult:
    """One frame of several lines about it; of each object the last region counts."""
    regions = {region.track_id: region for line in lines for region in line.regions}
    ordered = sorted(regions.values(), key=lambda region: (region.track_id is None, region.track_id or 0))
    return FrameResult(lines[0].index, lines[0].time, tuple(ordered))


def score(region: Region) -> float:
    """The probability that a region's object is there; the predicted IoU, or 1, where it is not known."""
    known = (value for value in (region.presence, region.predicted_iou) if value is not None)
    return next(known, 1.0)
