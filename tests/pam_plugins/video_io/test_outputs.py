"""What was seen of a video, written and read again: the record, MOT text, tracks, and the annotated MP4."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pam_core.errors import DatasetError, SchemaError
from pam_core.masks import Mask
from pam_core.media.frame_sources import FrameIterator, VideoFile
from pam_core.types import Picture, Region
from pam_core.video import Fault, Frame, FrameResult, SessionResult, TrackEvent
from pam_plugins.render import annotated_video as video_drawing
from pam_plugins.render import overlay
from pam_plugins.render.annotated_video import AnnotatedVideo, LiveVideo, write_annotated
from pam_plugins.video_io.mot import write_mot
from pam_plugins.video_io.record import Record, Replay, read_record
from pam_plugins.video_io.tracks import write_tracks
from tests.factories import make_region
from tests.paths import ROOT
from tests.videos import told


def box_region(track: int, x: int, y: int, width: int = 20, height: int = 10, **values: object) -> Region:
    mask = np.zeros((91, 121), bool)
    mask[y : y + height, x : x + width] = True
    return make_region(mask, track_id=track, **values)


EMPTY = make_region(np.zeros((91, 121), bool), track_id=2, presence=0.01)
SEEN: list[SessionResult] = [
    FrameResult(2, 0.08, (box_region(1, 10, 5, presence=0.75), EMPTY)),
    FrameResult(3, 0.12, (box_region(1, 12, 5), box_region(2, 50, 60, presence=None, predicted_iou=None))),
    Fault(4, 0.16, "frame 4 cannot be read", None),
    TrackEvent(1, 2, 3, 0.08, 0.12, {"en": "A box moves.", "zh": "盒子动了。"}),
    FrameResult(1, 0.04, (box_region(1, 8, 5),)),
    FrameResult(2, 0.08, (box_region(1, 10, 6, presence=0.5),)),
    TrackEvent(1, 0, 2, 0.0, 0.08, {"en": "It comes \u2028 in."}),
    TrackEvent(2, 2, 3, 0.08, 0.12),
]


def written(path: Path, seen: Iterable[SessionResult] = SEEN) -> Path:
    record = Record(path)
    for each in seen:
        record.write(each)
    record.close()
    return path


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    path = written(tmp_path / "new" / "record.jsonl")
    assert list(read_record(path)) == SEEN
    assert path.read_bytes().count(b"\n") == len(SEEN)
    written(path, SEEN[:1])
    assert list(read_record(path)) == SEEN[:1], "an older record is replaced"


def test_each_line_is_in_the_file_at_once(tmp_path: Path) -> None:
    record = Record(tmp_path / "record.jsonl")
    for number, each in enumerate(SEEN, 1):
        record.write(each)
        assert len(list(read_record(record.path))) == number
    record.close()


@pytest.mark.parametrize("data", [b"my notes\n", b'{"schema":"pam.perception/1"}\n', b"\x00\x01"])
def test_another_file_is_refused_and_left(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"no record of a video; choose another file \(nothing was changed\)"):
        Record(path)
    assert path.read_bytes() == data


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path, tmp_path / "file" / "below.jsonl"):
        with pytest.raises(DatasetError, match="choose another"):
            Record(path)


def test_a_line_cut_short_is_left_out_and_a_damaged_one_named(tmp_path: Path) -> None:
    path = written(tmp_path / "record.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert list(read_record(path)) == SEEN[:-1]
    lines = whole.split(b"\n")
    for bad in (b"{", b"[]", b'{"schema":"pam.video/1","kind":"ghost"}', lines[2].replace(b'"what"', b'"why"')):
        path.write_bytes(b"\n".join([*lines[:2], bad, *lines[3:]]))
        with pytest.raises(SchemaError, match=r"record\.jsonl, line 3: "):
            list(read_record(path))


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "core")])}


@pytest.mark.e2e
@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_kill_9_loses_nothing_that_was_seen(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.pam_plugins.video_io.writer", str(path)], env=environment(), cwd=ROOT
    )
    deadline = time.monotonic() + 60
    while not path.exists() or path.stat().st_size < 50_000:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait(timeout=30)
    frames = list(read_record(path))
    assert [frame.index for frame in frames if isinstance(frame, FrameResult)] == list(range(len(frames)))
    assert sum(map(len, path.read_bytes().splitlines(keepends=True)[: len(frames)])) >= 50_000


@pytest.mark.e2e
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
def test_a_full_disk_ends_with_a_sentence_and_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "tests.pam_plugins.video_io.writer", str(path), "10000"],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3, done.stderr
    assert f"Cannot write {path}" in done.stderr
    assert "Traceback" not in done.stderr
    assert path.read_bytes().endswith(b"\n")
    assert len(list(read_record(path))) > 5


def test_a_replay_is_in_order_and_has_each_frame_once(tmp_path: Path) -> None:
    replay = Replay(written(tmp_path / "record.jsonl"))
    frames = list(replay.frames())
    assert [frame.index for frame in frames] == [1, 2, 3]
    assert frames[1].regions == (SEEN[5].regions[0], EMPTY), "of each object what was said last"  # type: ignore[union-attr]
    assert (replay.tracks, replay.span, len(replay.faults)) == ([1, 2], (1, 3), 1)
    come, move = (SEEN[6].texts, SEEN[3].texts)  # type: ignore[union-attr]
    assert [replay.captions(index) for index in range(5)] == [{1: come}, {1: come}, {1: move}, {1: move}, {}]


def test_mot(tmp_path: Path) -> None:
    write_mot(Replay(written(tmp_path / "record.jsonl")), tmp_path / "mot.txt")
    assert (tmp_path / "mot.txt").read_text().splitlines() == [
        "2,1,9,6,20,10,1.0000,-1,-1,-1",
        "3,1,11,7,20,10,0.5000,-1,-1,-1",
        "4,1,13,6,20,10,1.0000,-1,-1,-1",
        "4,2,51,61,20,10,1.0000,-1,-1,-1",
    ]


def test_tracks(tmp_path: Path) -> None:
    replay = Replay(written(tmp_path / "record.jsonl"))
    write_tracks(replay, tmp_path / "tracks.json", {"width": 121, "height": 91, "fps": 25.0})
    data = json.loads((tmp_path / "tracks.json").read_text(encoding="utf-8"))
    assert data["video"] == {"width": 121, "height": 91, "fps": 25.0}
    assert [fault["index"] for fault in data["faults"]] == [4]
    one, two = data["tracks"]
    assert [each["frame"] for each in one["frames"]] == [1, 2, 3]
    assert [each["frame"] for each in two["frames"]] == [3]
    assert two["frames"][0]["bbox"] == [50, 60, 20, 10]
    assert Mask.from_coco(two["frames"][0]["segmentation"]) == box_region(2, 50, 60).mask
    assert [event["texts"].get("zh") for event in one["events"]] == [None, "盒子动了。"]


def test_nothing_seen(tmp_path: Path) -> None:
    replay = Replay(written(tmp_path / "record.jsonl", []))
    assert replay.span is None
    write_mot(replay, tmp_path / "mot.txt")
    write_tracks(replay, tmp_path / "tracks.json", {})
    assert (tmp_path / "mot.txt").read_text() == ""
    assert json.loads((tmp_path / "tracks.json").read_text())["tracks"] == []
    write_annotated(tmp_path / "v.mp4", FrameIterator([white()] * 3), replay)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mot.txt", "record.jsonl", "tracks.json"]


# The annotated video


def white() -> Picture:
    return np.full((91, 121, 3), 255, np.uint8)


def video_of(path: Path) -> list[Frame]:
    frames, faults = told(VideoFile(path))
    assert faults == []
    return frames


def burnt(frame: Frame) -> bool:
    """Whether there is a dark ground for captions at the bottom."""
    return bool(np.median(frame.picture[-8:]) < 100)


def source(count: int) -> Iterator[tuple[float, Picture]]:
    return ((index * 0.04 + (0.5 if index > 4 else 0), white()) for index in range(count))


def seen_of(count: int) -> list[SessionResult]:
    frames: list[SessionResult] = [
        FrameResult(index, 0.0, (box_region(1, 10 + 4 * index, 20),)) for index in range(count)
    ]
    return [*frames, TrackEvent(1, 2, 4, 0, 0, {"en": "It goes."}), TrackEvent(1, 6, 7, 0, 0, {"en": "It goes on."})]


@pytest.mark.parametrize("encoder", ["libx264", "mpeg4"])
def test_an_annotated_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str) -> None:
    if not video_drawing._available(encoder):
        pytest.skip(f"no encoder {encoder}")
    monkeypatch.setattr(video_drawing, "ENCODERS", (encoder,))
    path = tmp_path / "seen.mp4"
    replay = Replay(written(tmp_path / "record.jsonl", seen_of(10)))
    advanced: list[None] = []
    assert not write_annotated(path, FrameIterator(source(12)), replay, lambda: advanced.append(None))
    frames = video_of(path)
    assert len(frames) == len(advanced) == 10, "up to the last that was seen"
    assert frames[0].picture.shape == (92, 122, 3), "even sides"
    assert [frame.time for frame in frames] == pytest.approx([time for time, _ in source(10)], abs=0.0011)
    for index, frame in enumerate(frames):
        inside, outside = frame.picture[25, 20 + 4 * index], frame.picture[25, 116]
        assert int(inside.min()) < 200 < int(outside.min()), "a mask is drawn where the object is"
    assert [index for index, frame in enumerate(frames) if burnt(frame)] == [2, 3, 4, 6, 7], "captions at their time"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["record.jsonl", "seen.mp4"]


def test_a_part_of_a_video_that_was_seen(tmp_path: Path) -> None:
    replay = Replay(
        written(tmp_path / "record.jsonl", [s for s in seen_of(9) if getattr(s, "index", 0) not in (0, 3)])
    )
    write_annotated(tmp_path / "v.mp4", FrameIterator(source(12)), replay)
    frames = video_of(tmp_path / "v.mp4")
    assert len(frames) == 8
    drawn = [bool((frame.picture[25] < 200).any()) for frame in frames]
    assert drawn == [True, True, False, *[True] * 5], "frames between are there without regions"


def test_a_live_video_has_the_latest_caption(tmp_path: Path) -> None:
    """The session is some frames behind its source, and does not tell of every frame."""
    live = LiveVideo(tmp_path / "v.mp4", FrameIterator(source(12)))
    items = iter(live)
    for _ in range(5):
        next(items)
    frames, events = seen_of(12)[:12], seen_of(12)[12:]
    for seen in (frames[0], frames[2], events[0], frames[3], frames[4]):
        live.add(seen)
    for item in items:
        assert isinstance(item, Frame)
        live.add(frames[item.index] if item.index < 11 else FrameResult(11, 0.0, ()))
    live.close()
    written_frames = video_of(tmp_path / "v.mp4")
    assert [round(frame.time, 2) for frame in written_frames[:4]] == [0.0, 0.08, 0.12, 0.16]
    assert len(written_frames) == 11
    assert [burnt(frame) for frame in written_frames] == [False, False, *[True] * 8, False]


def test_a_live_video_keeps_few_frames(tmp_path: Path) -> None:
    live = LiveVideo(tmp_path / "v.mp4", FrameIterator(white() for _ in range(500)))
    assert sum(1 for _ in live) == 500
    assert len(live._kept) == video_drawing.KEPT
    live.drop()
    assert list(tmp_path.iterdir()) == []


def test_chinese_needs_a_font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = Frame(0, 0.0, white())
    for font in (None, overlay.cjk_font()):
        video_drawing._font.cache_clear()
        monkeypatch.setattr(overlay, "cjk_font", lambda font=font: font)
        video = AnnotatedVideo(tmp_path / "v.mp4")
        video.write(frame, (), {1: {"zh": "盒子动了。"}})
        video.close()
        assert video.without_font == (font is None)
        assert burnt(video_of(tmp_path / "v.mp4")[0]) == (font is not None)
    video_drawing._font.cache_clear()


@pytest.mark.parametrize("text", ["A man in a blue coat walks past " * 3, "一个穿蓝色外套的男人走过去" * 4, "x" * 90])
def test_long_captions_are_broken_into_lines(text: str) -> None:
    from PIL import ImageFont

    font = ImageFont.load_default(11)
    lines = video_drawing._wrapped(text, font, 120)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(font.getlength(line) <= 120 for line in lines) or " " not in text.strip()
    assert len(lines) > 1 or text.startswith("x")


@pytest.mark.parametrize(
    "text", ["two\nlines", "a bell\a and\x0b\x1f more\r", "\u2028\u2029\x85", "一\n二", "�\x00�", ""]
)
def test_whatever_a_model_says_can_be_burnt_in(text: str) -> None:
    """A line break in a caption once ended the video."""
    burnt_in = video_drawing.annotated(white(), (), {1: {"en": text}})
    assert burnt_in.shape == white().shape
    assert (burnt_in != white()).any() == bool("".join(c for c in text if c.isprintable()).strip())


def test_captions_leave_half_of_the_picture(tmp_path: Path) -> None:
    captions = {track: {"en": "A long story about an object. " * 5} for track in range(9)}
    scene = video_drawing.annotated(white(), (), captions)
    assert (scene[: 91 // 2 - 1] == 255).all()
    assert np.median(scene[-10:]) < 100


def test_a_video_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(b"an old one")

    def broken() -> Iterator[Picture]:
        yield white()
        raise RuntimeError("the source broke")

    replay = Replay(written(tmp_path / "record.jsonl", seen_of(9)))
    with pytest.raises(RuntimeError, match="the source broke"):
        write_annotated(path, FrameIterator(broken()), replay)
    assert path.read_bytes() == b"an old one"
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(DatasetError, match="Cannot write"):
        AnnotatedVideo(tmp_path / "none" / "v.mp4")


def test_frames_that_come_faster_than_a_millisecond(tmp_path: Path) -> None:
    video = AnnotatedVideo(tmp_path / "v.mp4")
    for index in range(5):
        video.write(Frame(index, index / 9000, white()), (), {})
    video.close()
    assert [frame.time for frame in video_of(tmp_path / "v.mp4")] == pytest.approx([0, 0.001, 0.002, 0.003, 0.004])


@pytest.mark.e2e
def test_drawing_takes_constant_memory(tmp_path: Path) -> None:
    peaks = []
    for count in (40, 400):
        replay = Replay(written(tmp_path / f"{count}.jsonl", seen_of(20)[:20]))
        video = AnnotatedVideo(tmp_path / f"{count}.mp4")
        tracemalloc.start()
        for index in range(count):
            video.write(Frame(index, index / 25, white()), [box_region(1, index % 90, 20)], replay.captions(index))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        video.close()
    assert peaks[1] < 1.5 * peaks[0]
