"""The loop of `pam video`: runs the session, writes the files, prints the summary."""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import typer
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from pam_core.errors import VideoError, VideoReadError
from pam_core.video import FrameResult, SessionResult, TrackEvent
from pam_plugins.cli.console import FAILED, INTERRUPTED, err, fail, note, out, plain
from pam_plugins.cli.console import progress as progress_bar
from pam_plugins.video_io.mot import write_mot
from pam_plugins.video_io.record import Record, Replay
from pam_plugins.video_io.tracks import write_tracks

if TYPE_CHECKING:
    from pam_core.media.frame_sources import Camera, RecordedSource
    from pam_core.sessions.session import Direction, StreamSession
    from pam_plugins.render.annotated_video import LiveVideo

MAX_ROWS = 60
WITHOUT_FONT = (
    "No font here has Chinese letters: the captions in the video are those in English only (docs/video.md)."
)


@dataclass(frozen=True)
class Outputs:
    """The files to write, None for those that are not."""

    record: Path | None
    mp4: Path | None
    mot: Path | None
    tracks: Path | None

    def all(self) -> dict[str, Path]:
        """The files to write, by option."""
        named = {"--out": self.record, "--mp4": self.mp4, "--mot": self.mot, "--tracks": self.tracks}
        return {option: path for option, path in named.items() if path is not None}


@dataclass
class _Count:
    """Counters of results. Only the latest events are kept."""

    frames: int = 0
    last: int = 0
    objects: set[int] = field(default_factory=set)
    events: int = 0
    faults: int = 0
    latest: deque[TrackEvent] = field(default_factory=lambda: deque(maxlen=MAX_ROWS))

    def add(self, result: SessionResult) -> None:
        if isinstance(result, FrameResult):
            self.frames += 1
            self.last = result.index
            self.objects.update(region.track_id for region in result.regions if region.track_id is not None)
        elif isinstance(result, TrackEvent):
            self.events += 1
            self.latest.append(result)
        else:
            self.faults += 1
            message = f"[yellow]fault[/] at frame {result.index}, {result.time:.2f} s: {plain(result.what)}"
            err.print(message, soft_wrap=True, highlight=False)


def run(session: StreamSession, source: RecordedSource | Camera, direction: Direction, outputs: Outputs) -> None:
    """Run a session whose prompts are given to the end of the source, or to Ctrl-C. Ends the command.

    Raises VideoError, before any work, where the source cannot go in this direction, and DatasetError.
    """
    from pam_core.media.frame_sources import Camera
    from pam_plugins.render.annotated_video import LiveVideo

    count, interrupted = _Count(), False
    with ExitStack() as stack:
        live = LiveVideo(outputs.mp4, source) if isinstance(source, Camera) and outputs.mp4 is not None else None
        if live is not None:
            stack.callback(live.drop)
        results = session.run(live or source, direction)
        path = outputs.record or Path(stack.enter_context(TemporaryDirectory(prefix="pam-video-"))) / "record.jsonl"
        record = stack.enter_context(closing(Record(path)))
        progress = stack.enter_context(progress_bar())
        bar = progress.add_task("tracking", total=source.frames)
        try:
            for result in results:
                record.write(result)
                if live is not None:
                    live.add(result)
                count.add(result)
                progress.update(bar, completed=count.frames)
        except KeyboardInterrupt:
            interrupted = True
        except VideoError as error:  # a camera that cannot be opened
            raise VideoReadError(str(error)) from error
        try:
            session.close()
            without_font = _finish(path, source, live, outputs, progress)
        except KeyboardInterrupt:
            kept = f"; the results are in {outputs.record}" if outputs.record else ""
            fail(f"stopped: the other files were not finished{kept}.", INTERRUPTED)
    _report(count, interrupted, outputs)
    if without_font:
        note(WITHOUT_FONT)
    if interrupted:
        fail(f"stopped after frame {count.last}; the results until then are kept.", INTERRUPTED)
    if count.faults or not count.frames:
        raise typer.Exit(FAILED)


def _finish(
    record: Path, source: RecordedSource | Camera, live: LiveVideo | None, outputs: Outputs, progress: Progress
) -> bool:
    """Write the other files. Returns whether captions were left out of the video for want of a font."""
    from pam_core.media.frame_sources import Camera
    from pam_plugins.render.annotated_video import write_annotated

    if live is not None:
        live.close()
    if not (outputs.mot or outputs.tracks or (outputs.mp4 and live is None)):
        return live is not None and live.without_font
    replay = Replay(record)
    if outputs.mot is not None:
        write_mot(replay, outputs.mot)
    if outputs.tracks is not None:
        width, height = source.size or (None, None)
        write_tracks(replay, outputs.tracks, {"width": width, "height": height, "fps": source.fps})
    if outputs.mp4 is None or isinstance(source, Camera):
        return live is not None and live.without_font
    bar = progress.add_task("drawing", total=source.frames)
    return write_annotated(outputs.mp4, source, replay, lambda: progress.advance(bar))


def _report(count: _Count, interrupted: bool, outputs: Outputs) -> None:
    table = Table("object", "frames", "seconds", "caption", box=None, pad_edge=False, header_style="bold")
    for event in count.latest:
        seconds = f"{event.start:.1f}-{event.end:.1f}"
        words = " / ".join(event.texts.values())
        table.add_row(*map(Text, (str(event.track_id), f"{event.first}-{event.last}", seconds, words)))
    if count.events:
        out.print(table)
    if count.events > MAX_ROWS:
        note(f"These are the last {MAX_ROWS} events of {count.events}.")
    parts = [f"{count.frames} frames, {len(count.objects)} objects, {count.events} events"]
    parts += [f"{count.faults} faults"] if count.faults else []
    names = {"--out": "record", "--mp4": "video", "--mot": "boxes", "--tracks": "tracks"}
    parts += [f"{names[option]} in {path}" for option, path in outputs.all().items() if path.exists()]
    note("; ".join(parts) + ".")
