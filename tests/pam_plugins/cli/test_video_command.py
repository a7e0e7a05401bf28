"""`pam video`: real encoded videos, a made-up model that follows colours, and everything that is written."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pam_core.masks import Mask
from pam_core.media import camera
from pam_core.media.frame_sources import VideoFile
from pam_core.types import Picture
from pam_core.video import Fault, Frame, FrameResult, SessionResult, TrackEvent
from pam_plugins import plugins
from pam_plugins.cli import console
from pam_plugins.plugins import get_plugins
from pam_plugins.video_io.record import read_record
from tests.factories import FAKE_INFO, FakeModel, FakePlugin, write_picture
from tests.fake_video import FakeSource, FakeTracker, FakeVideoModel, Square, steady
from tests.pam_plugins.cli.conftest import Ended, run_main
from tests.videos import told, write_video

WIDTH, HEIGHT, COUNT = 160, 120, 40
MADE = FakeSource(
    COUNT, [Square("red", steady(10, 20, dx=2), 24), Square("blue", steady(120, 80, dx=-1), 24)], WIDTH, HEIGHT
)
Call = Callable[..., Ended]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Two seconds of a red and a blue square that move."""
    return write_video(tmp_path / "squares.mp4", (frame.picture for frame in MADE if isinstance(frame, Frame)))


@pytest.fixture
def model() -> Iterator[FakeVideoModel]:
    plugins._loaded.clear()
    fake = FakeVideoModel()
    with get_plugins().registered(FakePlugin(fake), "fake-video"):
        yield fake
    plugins._loaded.clear()


@pytest.fixture
def video(model: FakeVideoModel, monkeypatch: pytest.MonkeyPatch) -> Call:
    """`pam video ... --model fake-video`."""
    monkeypatch.setattr(console.out, "_width", 200)
    return lambda *arguments, model="fake-video": run_main("video", *arguments, "--model", model)


def split(path: Path) -> tuple[list[FrameResult], list[TrackEvent], list[Fault]]:
    seen: list[SessionResult] = list(read_record(path))
    return (
        [each for each in seen if isinstance(each, FrameResult)],
        [each for each in seen if isinstance(each, TrackEvent)],
        [each for each in seen if isinstance(each, Fault)],
    )


def test_two_objects_and_everything_that_is_written(video: Call, clip: Path, tmp_path: Path) -> None:
    out, mp4, mot, tracks = (tmp_path / name for name in ("o.jsonl", "o.mp4", "o.txt", "o.json"))
    files = ("--out", out, "--mp4", mp4, "--mot", mot, "--tracks", tracks)
    result = video(clip, "--point", "20,30", "--box", "100,75,144,110@10", "--clip", 20, "--lang", "en,zh", *files)
    assert result.exit_code == 0, result.stderr
    assert "A red thing, frames 0 to 20." in result.stdout
    assert "红色的东西" in result.stdout
    assert "40 frames, 2 objects, 4 events" in result.stderr

    frames, events, faults = split(out)
    assert [frame.index for frame in frames] == list(range(COUNT))
    assert [len(frame.regions) for frame in frames] == [1] * 10 + [2] * 30
    known = np.zeros((HEIGHT, WIDTH), bool)
    known[20:44, 40:64] = True
    assert Mask.from_array(known).iou([frames[15].regions[0].mask])[0] > 0.9
    assert sorted((event.track_id, event.first, event.last) for event in events) == [
        (1, 0, 20), (1, 20, 39), (2, 10, 30), (2, 30, 39)
    ]  # fmt: skip
    assert faults == []
    assert len(told(VideoFile(mp4))[0]) == COUNT
    assert len(mot.read_text().splitlines()) == 40 + 30
    data = json.loads(tracks.read_text(encoding="utf-8"))
    assert [(track["id"], len(track["frames"]), len(track["events"])) for track in data["tracks"]] == [
        (1, 40, 2), (2, 30, 2)
    ]  # fmt: skip
    assert data["video"] == {"width": WIDTH, "height": HEIGHT, "fps": 25.0}


def test_without_files_there_is_the_table_and_nothing_else(video: Call, clip: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    result = video(clip, "--point", "20,30")
    assert result.exit_code == 0, result.stderr
    assert "A red thing" in result.stdout
    assert sorted(tmp_path.iterdir()) == before


def test_a_part_in_steps(video: Call, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    result = video(clip, "--point", "40,30", "--start", 0.4, "--end", 1.2, "--every", 5, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert [frame.index for frame in split(out)[0]] == [10, 15, 20, 25]


def test_no_caption_of_a_file_is_lost_however_slow_they_are(
    video: Call, model: FakeVideoModel, clip: Path, tmp_path: Path
) -> None:
    """Two objects with an event on every frame: 78, while the first caption takes its time."""
    model.trouble.captions = lambda number, clips: time.sleep(1.0 if number == 0 else 0.002)
    out = tmp_path / "o.jsonl"
    result = video(clip, "--point", "20,30", "--point", "130,90", "--clip", 1, "--out", out)
    assert result.exit_code == 0, result.stderr
    _, events, faults = split(out)
    assert faults == []
    assert len(events) == 2 * (COUNT - 1)
    assert all(event.texts for event in events)


@pytest.mark.parametrize(
    ("direction", "seen"), [("backward", range(20, -1, -1)), ("both", [*range(20, 40), *range(19, -1, -1)])]
)
def test_directions(video: Call, clip: Path, tmp_path: Path, direction: str, seen: list[int]) -> None:
    out, mot, mp4 = tmp_path / "o.jsonl", tmp_path / "o.txt", tmp_path / "o.mp4"
    result = video(clip, "--point", "60,30@20", "--direction", direction, "--out", out, "--mot", mot, "--mp4", mp4)
    assert result.exit_code == 0, result.stderr
    frames, events, _ = split(out)
    assert [frame.index for frame in frames] == list(seen)
    assert all(len(frame.regions) == 1 for frame in frames)
    assert events
    lines = [int(line.split(",")[0]) for line in mot.read_text().splitlines()]
    assert lines == sorted(index + 1 for index in seen), "in order of frames, whatever the order they were seen in"
    assert len(told(VideoFile(mp4))[0]) == len(list(seen))


def test_several_clicks_on_one_object_and_a_correction(
    video: Call, clip: Path, tmp_path: Path, model: FakeVideoModel
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        '{"track": 7, "points": [[20, 30], [25, 35], [100, 10, 0]]}\n\n'
        '{"track": 7, "frame": 20, "points": [[110, 90]], "note": "it was the blue one"}\n'
    )
    out = tmp_path / "o.jsonl"
    result = video(clip, "--prompts", prompts, "--out", out, "--no-captions")
    assert result.exit_code == 0, result.stderr
    frames, events, _ = split(out)
    assert {region.track_id for frame in frames for region in frame.regions} == {7}
    assert frames[19].regions[0].box[1] < 50 < frames[20].regions[0].box[1]
    assert all(event.texts == {} for event in events)
    assert model.calls == []


def test_a_mask_and_a_folder_of_frames(video: Call, tmp_path: Path) -> None:
    for frame in MADE:
        assert isinstance(frame, Frame)
        write_picture(tmp_path / "frames" / f"{frame.index}.png", frame.picture)
    (tmp_path / "frames" / "5.png").write_bytes(b"no picture")
    mask = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    mask[20:44, 30:54] = 255
    out = tmp_path / "o.jsonl"
    result = video(tmp_path / "frames", "--mask", f"{write_picture(tmp_path / 'm.png', mask)}@10", "--out", out)
    assert result.exit_code == 1, "something was lost"
    assert "fault at frame 5, 0.20 s: frame 5 cannot be read" in result.stderr
    frames, _, faults = split(out)
    assert [frame.index for frame in frames] == [index for index in range(COUNT) if index != 5]
    assert [len(frame.regions) for frame in frames if frame.index >= 10] == [1] * 30
    assert [fault.index for fault in faults] == [5]


def test_a_damaged_video_goes_on(video: Call, clip: Path, tmp_path: Path) -> None:
    data = clip.read_bytes()
    write_video(
        clip, (frame.picture for frame in MADE if isinstance(frame, Frame)), options={"movflags": "faststart"}
    )
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) * 7 // 10])
    mp4 = tmp_path / "o.mp4"
    result = video(clip, "--point", "20,30", "--out", tmp_path / "o.jsonl", "--mp4", mp4)
    assert result.exit_code == 1
    assert "was cut short" in result.stderr
    frames, events, _ = split(tmp_path / "o.jsonl")
    assert 10 < len(frames) < COUNT
    assert events
    assert len(told(VideoFile(mp4))[0]) == len(frames)


MISUSES: dict[str, tuple[list[str], str]] = {
    "no prompt": ([], "Got no object to track; wanted at least one --point"),
    "point of words": (["--point", "a,b"], "wanted X,Y"),
    "point with a label": (["--point", "1,2,0"], "several clicks on one object go into a file"),
    "point on no frame": (["--point", "1,2@x"], "wanted X,Y"),
    "point outside": (["--point", "500,10"], r"Got the point \(500, 10\) outside the picture"),
    "box inverted": (["--box", "9,9,1,1"], "wanted x1 < x2"),
    "mask missing": (["--mask", "{tmp}/none.png@3"], r"--mask .*none\.png: no such file"),
    "prompts and a point": (["--point", "1,1", "--prompts", "{tmp}/p.jsonl"], "--prompts together with"),
    "prompts missing": (["--prompts", "{tmp}/none.jsonl"], r"none\.jsonl: cannot be read"),
    "prompts without a track": (["--prompts", "{tmp}/trackless.jsonl"], r"line 2: got the track None; wanted"),
    "prompts with a bad frame": (["--prompts", "{tmp}/frame.jsonl"], r"line 1: got the frame -3; wanted"),
    "prompts with nothing": (["--prompts", "{tmp}/empty.jsonl"], "holds no prompt"),
    "a frame that is left out": (["--point", "1,1@7", "--every", "5"], "frame 7, which --every 5 leaves out"),
    "every 0": (["--point", "1,1", "--every", "0"], "Got every 0"),
    "start after end": (["--point", "1,1", "--start", "3", "--end", "2"], "wanted 0 <= start < end"),
    "clip 0": (["--point", "1,1", "--clip", "0"], "events of 0 to 0 frames"),
    "direction": (["--point", "1,1", "--direction", "up"], "Got the direction 'up'"),
    "backward without a frame": (["--point", "1,1", "--direction", "backward"], "wanted the frame of at least one"),
    "language": (["--point", "1,1", "--lang", "fr"], "no captions in fr; it has them in en, zh"),
    "no language": (["--point", "1,1", "--lang", ","], "Got no language"),
    "device": (["--point", "1,1", "--device", "toaster"], "Got the device 'toaster'"),
    "over the source": (["--point", "1,1", "--mp4", "{clip}"], "for --mp4 and for the source; wanted different"),
    "one file twice": (["--point", "1,1", "--mot", "{tmp}/o", "--tracks", "{tmp}/o"], "for --tracks and for --mot"),
}


@pytest.mark.parametrize(("arguments", "what"), MISUSES.values(), ids=MISUSES)
def test_misuse_ends_with_2_and_a_sentence(
    video: Call, clip: Path, tmp_path: Path, model: FakeVideoModel, arguments: list[str], what: str
) -> None:
    (tmp_path / "p.jsonl").write_text('{"track": 1, "points": [[1, 1]]}\n')
    (tmp_path / "trackless.jsonl").write_text('{"track": 1, "points": [[1, 1]]}\n{"points": [[1, 1]]}\n')
    (tmp_path / "frame.jsonl").write_text('{"track": 1, "frame": -3, "points": [[1, 1]]}\n')
    (tmp_path / "empty.jsonl").write_text("\n")
    data = clip.read_bytes()
    result = video(clip, *(argument.format(tmp=tmp_path, clip=clip) for argument in arguments))
    assert result.exit_code == 2, result.stderr
    assert re.search(what, result.stderr), result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert model.trackers == []
    assert clip.read_bytes() == data


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("{tmp}/none.mp4", "no such file; wanted a video file"),
        ("{tmp}/text.mp4", "no video that FFmpeg reads"),
        ("{tmp}/folder", "no picture in it can be read"),
        ("http://127.0.0.1/v.mp4", "Got the address"),
        ("camera:97", "camera 97 cannot be opened"),
    ],
)
def test_a_source_that_cannot_be_read(video: Call, tmp_path: Path, source: str, what: str) -> None:
    (tmp_path / "text.mp4").write_text("no video\n" * 50)
    (tmp_path / "folder").mkdir()
    result = video(source.format(tmp=tmp_path), "--point", "1,1")
    assert result.exit_code == 1
    assert what in result.stderr


@pytest.mark.parametrize("option", ["--out", "--mp4", "--mot", "--tracks"])
def test_a_place_that_cannot_be_written(video: Call, clip: Path, tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "file" / "below", tmp_path / "folder"):
        result = video(clip, "--point", "20,30", option, place)
        assert result.exit_code == 1
        assert f"choose another {option}" in result.stderr
    notes = tmp_path / "notes.jsonl"
    notes.write_text("mine")
    if option == "--out":
        assert video(clip, "--point", "20,30", option, notes).exit_code == 1
        assert notes.read_text() == "mine"


def test_models_that_follow_nothing(video: Call, clip: Path) -> None:
    with get_plugins().registered(FakePlugin(FakeModel()), "pictures"):
        result = video(clip, "--point", "1,1", model="fake")
        assert result.exit_code == 2
        assert "fake is for pictures and tracks no objects; models that do: " in result.stderr
        assert "fake-video" in result.stderr
    result = video(clip, "--point", "1,1", model="gpt-9")
    assert (result.exit_code, "No model is called 'gpt-9'" in result.stderr) == (2, True)
    liar = FakePlugin(FakeModel(replace(FAKE_INFO, name="liar", video=True)))
    with get_plugins().registered(liar, "liar"):
        result = video(clip, "--point", "1,1", model="liar")
        assert (result.exit_code, "liar tracks no objects" in result.stderr) == (1, True)


def test_auto_takes_the_best_that_follows_objects(
    video: Call, clip: Path, model: FakeVideoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = FakePlugin(FakeModel(replace(FAKE_INFO, rank=10_000)))
    model.info = replace(model.info, rank=9_000)
    with get_plugins().registered(pictures, "pictures"):
        result = video(clip, "--point", "20,30", model="auto")
        assert result.exit_code == 0, result.stderr
        assert "Model: fake-video" in result.stderr
        infos = {
            "fake": FAKE_INFO,
            "pam": replace(FAKE_INFO, name="pam", video=True, missing="its weights are not here."),
        }
        monkeypatch.setattr("pam_plugins.plugins.model_infos", lambda: infos)
        result = video(clip, "--point", "20,30", model="auto")
        assert result.exit_code == 2
        assert "is ready here. pam: its weights are not here." in result.stderr


# Ctrl-C and cameras


def interrupt_at(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the tracker looks at its n-th frame."""
    step, steps = FakeTracker.step, []

    def interrupted(self: FakeTracker, frame: Frame) -> list:  # type: ignore[type-arg]
        steps.append(frame.index)
        if len(steps) == count:
            raise KeyboardInterrupt
        return step(self, frame)

    monkeypatch.setattr(FakeTracker, "step", interrupted)


def test_ctrl_c_keeps_what_was_seen(video: Call, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_at(12, monkeypatch)
    out, mp4, mot = tmp_path / "o.jsonl", tmp_path / "o.mp4", tmp_path / "o.txt"
    result = video(clip, "--point", "20,30", "--clip", 5, "--out", out, "--mp4", mp4, "--mot", mot)
    assert result.exit_code == 130
    assert "stopped after frame 11; the results until then are kept." in result.stderr
    assert len(split(out)[0]) == 12
    assert len(mot.read_text().splitlines()) == 12
    assert len(told(VideoFile(mp4))[0]) == 12


def test_a_camera_until_ctrl_c(video: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pictures(device: object) -> Generator[Picture, None, None]:
        assert device == 0
        for frame in MADE:
            assert isinstance(frame, Frame)
            time.sleep(0.02)
            yield frame.picture

    monkeypatch.setattr(camera, "_pictures", pictures)
    interrupt_at(15, monkeypatch)
    out, mp4 = tmp_path / "o.jsonl", tmp_path / "o.mp4"
    result = video("camera:0", "--point", "20,30", "--clip", 5, "--out", out, "--mp4", mp4)
    assert result.exit_code == 130
    frames, events, _ = split(out)
    assert len(frames) == 15
    assert events
    drawn = told(VideoFile(mp4))[0]
    assert len(drawn) == 15
    assert not bool(np.median(drawn[3].picture[-6:]) < 100)
    assert bool(np.median(drawn[-1].picture[-6:]) < 100), "the latest caption is burnt in"
    for wrong in (["--every", "2"], ["--direction", "backward"]):
        result = video("camera:0", "--point", "20,30@3", *wrong)
        assert result.exit_code == 2


@pytest.mark.e2e
@pytest.mark.skipif(sys.platform == "win32", reason="there are other signals")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_process_that_is_stopped(
    environment: dict[str, str], clip: Path, tmp_path: Path, how: signal.Signals
) -> None:
    (tmp_path / "site" / "fake_pam.py").write_text(
        "from tests.factories import FakePlugin\n"
        "from tests.fake_video import FakeVideoModel, Trouble\n"
        "plugin = FakePlugin(FakeVideoModel(Trouble(seconds=0.2)))\n"
    )
    out, mp4 = tmp_path / "o.jsonl", tmp_path / "o.mp4"
    line = ["video", clip, "--point", "20,30", "--model", "fake-video", "--clip", 3, "--out", out, "--mp4", mp4]
    process = subprocess.Popen(
        [sys.executable, "-m", "pam_plugins", *map(str, line)], env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not out.exists() or out.read_bytes().count(b"\n") < 6:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, how)
    _, errors = process.communicate(timeout=60)
    frames, events, _ = split(out)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert len(frames) >= 4
    assert "Traceback" not in errors
    if how == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
        assert not mp4.exists(), "a video that is not finished takes no place"
    else:
        assert process.returncode == 130, errors
        assert events
        assert "the results until then are kept" in errors
        assert len(told(VideoFile(mp4))[0]) == len(frames)
