"""Frame sources: real videos forward and backward, what is wrong with them, folders, iterables, cameras."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Generator, Iterator
from itertools import pairwise
from pathlib import Path
from threading import Event, active_count

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pam_core.contracts import ReversibleSource
from pam_core.errors import MissingExtraError, VideoError, VideoReadError
from pam_core.media import pyav as codec
from pam_core.media.frame_clock import FrameClock
from pam_core.media.frame_sources import (
    Camera,
    FrameFolder,
    FrameIterator,
    FrameRange,
    VideoFile,
    natural_order,
    open_source,
)
from pam_core.types import Picture
from pam_core.video import Fault, Frame
from tests.factories import write_picture
from tests.videos import HEIGHT, WIDTH, number_of, numbered, numbers, told, write_video

KINDS = [
    ("mpeg4", "mp4"),
    ("mpeg4", "avi"),
    ("libx264", "mp4"),
    ("libx264", "mkv"),
    ("libx264", "ts"),
    ("libx264", "avi"),  # its B-frames are shown at times that an AVI does not hold
    ("libx264", "h264"),  # no timestamps at all
    ("mjpeg", "avi"),
    ("libvpx-vp9", "webm"),
]


def available(name: str) -> bool:
    import av

    try:
        av.Codec(name, "w")
    except av.error.FFmpegError:
        return False
    return True


@pytest.fixture(params=KINDS, ids=" in ".join)
def video(request: pytest.FixtureRequest, tmp_path: Path) -> VideoFile:
    name, suffix = request.param
    if not available(name):
        pytest.skip(f"no encoder {name}")
    return VideoFile(write_video(tmp_path / f"video.{suffix}", 100, name))


@pytest.mark.e2e
def test_every_frame_once_and_upright_in_time(video: VideoFile) -> None:
    frames, faults = told(video)
    assert [number_of(frame.picture) for frame in frames] == list(range(100))
    assert [frame.index for frame in frames] == list(range(100))
    assert [frame.time for frame in frames] == pytest.approx([number / 25 for number in range(100)])
    assert {(frame.picture.shape, frame.picture.dtype) for frame in frames} == {((HEIGHT, WIDTH, 3), np.dtype("u1"))}
    assert (video.size, video.fps, video.frames in (None, 100)) == ((WIDTH, HEIGHT), 25, True)
    if video.path.suffix == ".h264":
        assert [fault.what for fault in faults] == ["frame 0 has no time; times are made from 25 frames a second."]
    else:
        assert faults == []
    assert numbers(video) == list(range(100)), "iterating again starts over"


@pytest.mark.e2e
@pytest.mark.parametrize("start", [None, 99, 250, 57, 24, 23, 0])
def test_backward_gives_the_same_frames(video: VideoFile, start: int | None) -> None:
    last = 99 if start is None else min(start, 99)
    frames, _ = told(video.reversed_from(start))
    assert [number_of(frame.picture) for frame in frames] == list(range(last, -1, -1))
    assert [frame.index for frame in frames] == list(range(last, -1, -1))
    assert [frame.time for frame in frames] == pytest.approx([number / 25 for number in range(last, -1, -1)])


@pytest.mark.e2e
def test_backward_in_small_pieces(video: VideoFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A keyframe interval that does not fit into memory is decoded several times."""
    monkeypatch.setattr("pam_core.media.video_file.BACKWARD_BYTES", 5 * 3 * WIDTH * HEIGHT)
    assert numbers(video.reversed_from(70)) == list(range(70, -1, -1))


@pytest.mark.e2e
@pytest.mark.parametrize(("name", "suffix"), [("mpeg4", "mp4"), ("libx264", "mkv")])
def test_a_variable_frame_rate(tmp_path: Path, name: str, suffix: str) -> None:
    times = [0, 40, 50, 130, 1130, 1131, 1500, 9000]
    video = VideoFile(write_video(tmp_path / f"v.{suffix}", 8, name, milliseconds=times))
    frames, faults = told(video)
    assert [frame.time for frame in frames] == pytest.approx([each / 1000 for each in times], abs=0.0011)
    assert faults == []
    assert [frame.time for frame in told(video.reversed_from())[0]] == [frame.time for frame in frames][::-1]


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_rotation_is_applied(tmp_path: Path, degrees: int) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48] = (255, 0, 0)
    video = VideoFile(write_video(tmp_path / "v.mp4", [picture] * 3, rotation=degrees))
    upright = np.rot90(picture, degrees // 90)
    assert video.size == (upright.shape[1], upright.shape[0])
    for frame in told(video)[0]:
        assert np.abs(frame.picture.astype(int) - upright).mean() < 12


def test_one_frame_and_odd_sizes(tmp_path: Path) -> None:
    picture = np.tile(np.arange(101, dtype=np.uint8)[None, :, None], (75, 1, 3))
    video = VideoFile(write_video(tmp_path / "v.avi", [picture], "mjpeg"))
    frames, faults = told(video)
    assert [(frame.index, frame.time, frame.picture.shape) for frame in frames] == [(0, 0.0, (75, 101, 3))]
    assert np.abs(frames[0].picture.astype(int) - picture).mean() < 8
    assert faults == []
    assert len(told(video.reversed_from())[0]) == 1


def noisy(count: int) -> Iterator[Picture]:
    """Pictures that take some bytes each, so that damage hits one of them."""
    for number in range(count):
        picture = np.random.default_rng(number).integers(60, 190, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        picture[:16] = numbered(number)[:16]
        yield picture


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("name", "suffix"), [("mpeg4", "mp4"), ("libx264", "mp4"), ("mpeg4", "mkv"), ("mjpeg", "avi")]
)
def test_a_file_cut_in_the_middle(tmp_path: Path, name: str, suffix: str) -> None:
    path = write_video(tmp_path / f"v.{suffix}", noisy(100), name, options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    frames, faults = told(VideoFile(path))
    assert 45 < len(frames) < 65
    assert [number_of(frame.picture) for frame in frames[:45]] == list(range(45))
    assert "was cut short" in faults[-1].what


@pytest.mark.e2e
def test_corrupt_bytes_in_the_middle(tmp_path: Path) -> None:
    """The frames that they hit are faults and keep their numbers; the same is seen backward."""
    path = write_video(tmp_path / "v.mp4", noisy(100), options={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 30] = bytes(len(data) // 30)
    path.write_bytes(data)
    video = VideoFile(path)
    frames, faults = told(video)
    lost = [fault.index for fault in faults if "cannot be read" in fault.what]
    assert 1 <= len(lost) <= 8
    assert sorted([frame.index for frame in frames] + lost) == list(range(100))
    assert [number_of(frame.picture) for frame in frames if frame.index < 45] == list(range(45))
    assert [number_of(frame.picture) for frame in frames if frame.index >= 75] == list(range(75, 100))
    assert [fault.time for fault in faults] == pytest.approx([fault.index / 25 for fault in faults])
    back, again = told(video.reversed_from())
    assert [(f.index, f.time, number_of(f.picture)) for f in reversed(back)] == [
        (f.index, f.time, number_of(f.picture)) for f in frames
    ]
    assert sorted(fault.index for fault in again) == sorted(fault.index for fault in faults)


@pytest.mark.e2e
def test_frames_that_are_missing_in_an_even_video_are_told(tmp_path: Path) -> None:
    """Where the container is damaged, nothing but the hole in the times says so."""
    path = write_video(tmp_path / "v.mkv", noisy(100))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    path.write_bytes(data)
    frames, faults = told(VideoFile(path))
    assert len(frames) < 100
    assert any("frames are missing before frame" in fault.what for fault in faults)


@pytest.mark.e2e
def test_times_that_start_over(tmp_path: Path) -> None:
    """Two recordings in one transport stream: one fault, and the times go on."""
    if not available("libx264"):
        pytest.skip("no encoder libx264")
    first, second = (
        write_video(tmp_path / f"{name}.ts", map(numbered, range(start, start + 50)), "libx264")
        for name, start in (("a", 0), ("b", 50))
    )
    both = tmp_path / "both.ts"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    frames, faults = told(VideoFile(both))
    assert [number_of(frame.picture) for frame in frames] == list(range(100))
    assert [frame.time for frame in frames] == pytest.approx([number / 25 for number in range(100)])
    assert [fault.index for fault in faults] == [50]
    assert "the time of frame 50 is 0.000 s" in faults[0].what


@pytest.mark.e2e
def test_a_size_that_changes_is_scaled_to_the_first(tmp_path: Path) -> None:
    if not available("libx264"):
        pytest.skip("no encoder libx264")
    parts = []
    for scale in (1, 2, 1):
        pictures = (numbered(n).repeat(scale, 0).repeat(scale, 1) for n in range(10))
        parts.append(write_video(tmp_path / f"{len(parts)}.h264", pictures, "libx264").read_bytes())
    path = tmp_path / "all.h264"
    path.write_bytes(b"".join(parts))
    frames, faults = told(VideoFile(path))
    assert {frame.picture.shape for frame in frames} == {(HEIGHT, WIDTH, 3)}
    assert [number_of(frame.picture) for frame in frames] == [*range(10)] * 3
    changes = [fault.what for fault in faults if "scaled" in fault.what]
    assert [what.split(";")[0] for what in changes] == [
        f"from frame 10 on, frames are {2 * WIDTH}x{2 * HEIGHT}",
        f"from frame 20 on, frames are {WIDTH}x{HEIGHT}",
    ]


@pytest.mark.e2e
@pytest.mark.parametrize("backward", [False, True])
def test_memory_is_bounded(tmp_path: Path, backward: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 frames are 115 MB, and so are two keyframe intervals; a few frames are held, also for a slow consumer."""
    nbytes = 160 * 120 * 3
    monkeypatch.setattr("pam_core.media.video_file.BACKWARD_BYTES", 100 * nbytes)
    video = VideoFile(write_video(tmp_path / "v.mp4", (numbered(n, 160, 120) for n in range(2000)), gop=1000))
    process = psutil.Process()
    before, count, peak = process.memory_info().rss, 0, 0
    for item in video.reversed_from() if backward else video:
        count += isinstance(item, Frame)
        if count % 100 == 10:
            time.sleep(0.05)
            peak = max(peak, process.memory_info().rss - before)
    assert count == 2000
    assert peak < 35_000_000


def test_stopping_early_ends_the_thread(tmp_path: Path) -> None:
    video = VideoFile(write_video(tmp_path / "v.mp4", 60))
    before = active_count()
    for frames in (iter(video), video.reversed_from()):
        next(frames)
        assert active_count() == before + 1
        frames.close()  # type: ignore[attr-defined]
        assert active_count() == before


NO_VIDEOS: dict[str, tuple[bytes | None, str]] = {
    "none.mp4": (None, "no such file"),
    "text.txt": (b"hello\nthere\n" * 99, "no video"),
    "text.mp4": (b"hello\nthere\n" * 99, "no video"),
    "empty.mp4": (b"", "no video"),
}


@pytest.mark.parametrize(("name", "wrong"), NO_VIDEOS.items(), ids=NO_VIDEOS)
def test_what_is_no_video(tmp_path: Path, name: str, wrong: tuple[bytes | None, str]) -> None:
    data, what = wrong
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(VideoReadError, match=what) as error:
        open_source(str(path))
    assert str(path) in str(error.value)
    assert "wanted" in str(error.value) or "get the file again" in str(error.value)


def test_a_video_cut_before_its_index(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", noisy(50))
    path.write_bytes(path.read_bytes()[:8000])
    with pytest.raises(VideoReadError, match="wanted a whole video file"):
        VideoFile(path)


def test_names_that_look_like_addresses_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("concat:").mkdir()
    write_video(tmp_path / "v.mp4", 3).rename("concat:/a|b.mp4")
    assert numbers(VideoFile("concat:/a|b.mp4")) == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("v.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}/a.ts\n#EXT-X-ENDLIST\n"),
        ("v.ffconcat", "ffconcat version 1.0\nfile '{address}/a.ts'\n"),
        ("v.mp4", "ffconcat version 1.0\nfile {address}/a.ts\n"),
    ],
)
def test_what_a_file_refers_to_is_not_fetched(tmp_path: Path, name: str, text: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        (tmp_path / name).write_text(text.format(address=address))
        with pytest.raises(VideoReadError):
            VideoFile(tmp_path / name)
        with pytest.raises(TimeoutError):
            server.accept()


def test_without_pyav_a_sentence_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "v.mp4", 3)

    def gone(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(codec, "import_module", gone)
    for opened in (lambda: VideoFile(path), lambda: Camera(0)):
        with pytest.raises(MissingExtraError, match=r"pip install 'pam-plugins\[video\]'"):
            opened()


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=True)), max_size=30), st.sampled_from([1.0, 29.97]))
def test_times_always_rise(times: list[float | None], fps: float) -> None:
    clock, given_times = FrameClock(fps), []
    for raw in times:
        if raw is not None and abs(raw) > 1e6:
            continue
        index, now, faults = clock.stamp(raw, (4, 4))
        assert index == len(given_times)
        assert all((fault.index, fault.time) == (index, now) for fault in faults)
        given_times.append(now)
    assert given_times[:1] in ([], [0.0])
    assert all(before < after for before, after in pairwise(given_times))


# Folders and iterables


def test_a_folder_in_natural_order_with_bad_pictures(tmp_path: Path) -> None:
    for number in range(12):
        write_picture(tmp_path / f"{number}.png", numbered(number))
    (tmp_path / "3.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("no picture either")
    write_picture(tmp_path / "7.png", numbered(7).repeat(2, 0).repeat(2, 1))
    source = open_source(str(tmp_path))
    assert isinstance(source, FrameFolder)
    frames, faults = told(source)
    rest = [number for number in range(12) if number != 3]
    assert [number_of(frame.picture) for frame in frames] == rest == [frame.index for frame in frames]
    assert [frame.time for frame in frames] == pytest.approx([number / 25 for number in rest])
    assert [fault.index for fault in faults] == [3, 7, 8]
    assert "3.png: not a picture" in faults[0].what
    assert f"scaled to {WIDTH}x{HEIGHT}" in faults[1].what
    assert numbers(source.reversed_from()) == rest[::-1]
    assert numbers(source.reversed_from(5)) == [5, 4, 2, 1, 0]


def test_folders_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(VideoReadError, match="no picture in it can be read"):
        FrameFolder(tmp_path)
    with pytest.raises(VideoReadError, match="wanted a folder of pictures"):
        FrameFolder(tmp_path / "none")


def test_natural_order() -> None:
    names = ["frame10.png", "Frame2.png", "frame1.png", "a.png", "frame1b.png"]
    ordered = sorted(map(Path, names), key=natural_order)
    assert [path.name for path in ordered] == ["a.png", "frame1.png", "frame1b.png", "Frame2.png", "frame10.png"]


def test_arrays_with_and_without_times() -> None:
    pictures = [numbered(number) for number in range(3)]
    assert [frame.time for frame in told(FrameIterator(pictures, fps=10))[0]] == pytest.approx([0, 0.1, 0.2])
    frames, faults = told(FrameIterator(zip([5.0, 5.5, 5.25], pictures, strict=True), fps=10))
    assert [frame.time for frame in frames] == pytest.approx([0, 0.5, 0.6])
    assert [fault.index for fault in faults] == [2]


BAD: list[tuple[object, str]] = [
    (np.zeros((4, 4, 3), np.float32), r"float32 \(4, 4, 3\)"),
    (np.zeros((4, 4), np.uint8), r"uint8 \(4, 4\)"),
    (np.zeros((4, 0, 3), np.uint8), r"\(4, 0, 3\)"),
    (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
    (None, "NoneType"),
    ("picture", "str"),
]


@pytest.mark.parametrize(("bad", "what"), BAD)
def test_bad_arrays_are_faults(bad: object, what: str) -> None:
    frames, faults = told(FrameIterator([numbered(0), bad, numbered(2)]))
    assert [frame.index for frame in frames] == [0, 2]
    assert [fault.index for fault in faults] == [1]
    with pytest.raises(AssertionError, match=what):
        raise AssertionError(faults[0].what)


def test_a_part_of_a_video(tmp_path: Path) -> None:
    video = VideoFile(write_video(tmp_path / "v.mp4", 100))
    part = FrameRange(video, start=1.0, end=2.0, every=5)
    assert [frame.index for frame in told(part)[0]] == [25, 30, 35, 40, 45]
    assert [frame.index for frame in told(part.reversed_from())[0]] == [45, 40, 35, 30, 25]
    assert [frame.index for frame in told(part.reversed_from(40))[0]] == [40, 35, 30, 25]
    assert (part.frames, part.fps, part.size) == (5, 5, video.size)
    assert isinstance(part, ReversibleSource) and isinstance(video, ReversibleSource)
    with pytest.raises(VideoError, match="every 0") as error:
        FrameRange(video, every=0)
    assert (type(error.value), error.value.exit_code) == (VideoError, 2), "a wrong setting, not an unreadable source"
    with pytest.raises(VideoError, match="start < end"):
        FrameRange(video, start=3, end=3)


# Cameras

Pictures = Generator[Picture, None, None]


@pytest.fixture
def stuck() -> Iterator[Event]:
    """What a driver waits for that does not come back; afterwards, no thread is left."""
    before, event = active_count(), Event()
    yield event
    event.set()
    deadline = time.monotonic() + 10
    while active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def camera(*lives: Callable[[], Pictures], timeout: float = 0.3) -> tuple[Camera, list[int]]:
    """A camera that is opened once for each of `lives`, and the list of its openings."""
    opened: list[int] = []

    def opener() -> Pictures:
        opened.append(len(opened))
        return lives[min(len(opened), len(lives)) - 1]()

    return Camera("made up", timeout, opener), opened


def gives(*found: int, then: str | Event = "end") -> Callable[[], Pictures]:
    """A camera's life: these pictures, one after the other, and then an end, an error or a wait."""

    def life() -> Pictures:
        for number in found:
            yield numbered(number)
            time.sleep(0.03)
        if then == "error":
            raise OSError(19, "No such device")
        if isinstance(then, Event):
            then.wait()

    return life


def take(source: Camera, count: int) -> list[Frame | Fault]:
    items = iter(source)
    found = [next(items) for _ in range(count)]
    items.close()  # type: ignore[attr-defined]
    return found


def test_a_camera_that_stops_and_comes_back(stuck: Event) -> None:
    source, opened = camera(gives(0, 1, 2, then=stuck), gives(then=stuck), gives(7, 8, then=stuck))
    items = take(source, 7)
    frames, faults = told(items)
    assert [number_of(frame.picture) for frame in frames] == [0, 1, 2, 7, 8]
    assert [frame.index for frame in frames] == list(range(5))
    assert [type(item) for item in items[3:5]] == [Fault, Fault], "one for each time that nothing came"
    assert all("no frame for 0.3 s" in fault.what and "opened again" in fault.what for fault in faults)
    assert opened == [0, 1, 2]
    assert frames[3].time - frames[2].time >= 0.6


def test_a_camera_that_hangs_is_not_opened_without_end(stuck: Event) -> None:
    source, opened = camera(gives(0, then=stuck), gives(then=stuck), timeout=0.05)
    frames, faults = told(take(source, 9))
    assert (len(frames), len(faults)) == (1, 8)
    assert opened == [0, 1, 2]


def test_a_camera_through_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg's own test picture comes through the same door as a camera."""
    monkeypatch.setattr("pam_core.media.camera._device", lambda device: ("testsrc=size=64x48:rate=30", "lavfi"))
    frames, faults = told(take(Camera(0), 3))
    assert [frame.picture.shape for frame in frames] == [(48, 64, 3)] * 3
    assert faults == []


@pytest.mark.parametrize(("then", "why"), [("error", "No such device"), ("end", "no more frames")])
def test_a_camera_that_is_unplugged(monkeypatch: pytest.MonkeyPatch, then: str, why: str) -> None:
    monkeypatch.setattr("pam_core.media.camera.RETRY", 0.02)
    source, _ = camera(gives(0, then=then), gives(then=then), gives(then=then), gives(1), timeout=30)
    frames, faults = told(take(source, 3))
    assert [number_of(frame.picture) for frame in frames] == [0, 1]
    assert len(faults) == 1, "told at once, and once"
    assert why in faults[0].what


def test_a_slow_consumer_gets_the_newest_frame(stuck: Event) -> None:
    source, _ = camera(gives(*range(40), then=stuck))
    seen = []
    for item in source:
        assert isinstance(item, Frame)
        seen.append(number_of(item.picture))
        if len(seen) == 4:
            break
        time.sleep(0.2)
    assert seen == sorted(seen)
    assert all(after - before > 2 for before, after in pairwise(seen))
    assert source.dropped >= 6


def test_a_camera_that_is_not_there() -> None:
    source, _ = camera(gives(then="error"), timeout=30)
    with pytest.raises(VideoReadError, match=r"made up cannot be opened: .*No such device"):
        next(iter(source))
    with pytest.raises(VideoReadError, match=r"camera 97 cannot be opened: .*is there a camera"):
        next(iter(open_source("camera:97")))


@pytest.mark.parametrize(
    "address", ["rtsp://127.0.0.1/live", "http://127.0.0.1/v.mp4", "camera:rtsp://127.0.0.1/live"]
)
def test_addresses_are_refused(address: str) -> None:
    with pytest.raises(VideoError, match="Got the address") as error:
        open_source(address)
    assert error.value.exit_code == 2
