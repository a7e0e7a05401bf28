"""The results file: whole lines only, whatever happens, and nobody else's file is ever touched."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pam_core.errors import DatasetError, SchemaError
from pam_core.types import Perception
from pam_plugins.datasets.contracts import Job
from pam_plugins.datasets.jsonl import JsonLinesSink, read_results
from tests.factories import as_result, make_perception, make_region, write_pictures

RUNNER = Path(__file__).with_name("runner.py")


def has(sink: JsonLinesSink, image: str, run: str = "run") -> bool:
    return sink.has(Job(Path(image)), run)


def read(sink: JsonLinesSink, image: str) -> Perception:
    return sink.read(Job(Path(image)), "run")


TRICKY = make_region(texts={"label": {"en": 'a "cat"\r\n🐈 \u2028 [/b]', "zh": "猫\x00"}})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


def filled(path: Path, count: int = 3) -> list[Perception]:
    perceptions = [make_perception(f"{number}.png", TRICKY) for number in range(count)]
    with closing(JsonLinesSink(path)) as sink:
        sink.write([as_result(perception) for perception in perceptions])
    return perceptions


def said(path: Path) -> list[dict[str, Any]]:
    """The lines of a finished file without the times; every line has to be whole."""
    data = path.read_bytes()
    assert data == b"" or data.endswith(b"\n")
    return [{**json.loads(line), "seconds": None} for line in data.splitlines()]


def test_what_is_appended_is_read_back(path: Path) -> None:
    perceptions = filled(path)
    assert list(read_results(path)) == perceptions
    with closing(JsonLinesSink(path)) as sink:
        assert [read(sink, p.image) for p in perceptions] == perceptions
    assert path.read_text(encoding="utf-8").count("\n") == 3


def test_what_is_appended_is_known_at_once_and_in_the_file(path: Path) -> None:
    with closing(JsonLinesSink(path)) as sink:
        assert not has(sink, "a.png")
        sink.write([as_result(make_perception("a.png"))])
        assert has(sink, "a.png")
        assert not has(sink, "a.png", "another run")
        assert [p.image for p in read_results(path)] == ["a.png"]
        assert read(sink, "a.png") == make_perception("a.png")


def test_folders_are_made(tmp_path: Path) -> None:
    filled(tmp_path / "a" / "b" / "c.jsonl", 1)
    assert len(said(tmp_path / "a" / "b" / "c.jsonl")) == 1


def test_opening_changes_nothing(path: Path) -> None:
    filled(path)
    before = path.read_bytes()
    for _ in range(3):
        JsonLinesSink(path).close()
    assert path.read_bytes() == before


def test_a_failed_picture_is_tried_again(path: Path) -> None:
    failed = make_perception("a.png", error="damaged")
    with closing(JsonLinesSink(path)) as sink:
        sink.write([as_result(failed)])
        assert not has(sink, "a.png")
    with closing(JsonLinesSink(path)) as sink:
        assert not has(sink, "a.png")
        sink.write([as_result(make_perception("a.png"))])
    with closing(JsonLinesSink(path)) as sink:
        assert read(sink, "a.png") == make_perception("a.png")
    assert list(read_results(path)) == [failed, make_perception("a.png")]


def test_a_name_that_is_not_utf8_is_kept(path: Path) -> None:
    perception = make_perception("caf\udce9.png")
    with closing(JsonLinesSink(path)) as sink:
        sink.write([as_result(perception)])
    with closing(JsonLinesSink(path)) as sink:
        assert read(sink, "caf\udce9.png") == perception
    assert list(read_results(path)) == [perception]


@pytest.mark.parametrize("kept", [1, 2, 15, 27, 28, 29, 200, -30, -2, -1])
def test_a_line_cut_short_is_removed_and_done_again(path: Path, kept: int) -> None:
    perceptions = filled(path)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:kept])
    with closing(JsonLinesSink(path)) as sink:
        assert path.read_bytes() == b"".join(lines[:2])
        assert [has(sink, p.image) for p in perceptions] == [True, True, False]
        sink.write([as_result(perceptions[2])])
    assert path.read_bytes() == whole


def test_a_cut_in_the_middle_of_a_letter_is_removed(path: Path) -> None:
    filled(path, 1)
    data = path.read_bytes()
    path.write_bytes(data + data[: data.index("🐈".encode()) + 2])
    JsonLinesSink(path).close()
    assert path.read_bytes() == data


GOOD = make_perception("good.png").to_line().encode()
FOREIGN = {
    "notes": b"Dear diary\n",
    "notes without a newline": b"Dear diary",
    "json": b"{}",
    "json object": b'{"schema": "pam.perception/1"}\n',
    "pretty json": b'{\n  "schema": "pam.perception/1"\n}\n',
    "json list": b"[1, 2]\n",
    "coco": b'{"images": [], "annotations": []}',
    "a later version": GOOD.replace(b"pam.perception/1", b"pam.perception/2"),
    "version 10": GOOD.replace(b"pam.perception/1", b"pam.perception/10"),
    "regions": json.dumps(make_region().to_json(), separators=(",", ":")).encode() + b"\n",
    "empty line first": b"\n" + GOOD,
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "utf-16": GOOD.decode().encode("utf-16"),
    "zeros": bytes(100),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "foreign after good": GOOD + b"and some notes\n",
    "foreign after good, no newline": GOOD + b"and some notes",
    "empty line between": GOOD + b"\n" + GOOD,
    "damaged in the middle": GOOD + GOOD[:60] + b"\n" + GOOD,
    "damaged at the end": GOOD + GOOD[:60] + b"\n",
    "not utf-8": GOOD.replace(b"good.png", b"g\xf6\xf6d.png"),
    "fields missing": b'{"schema":"pam.perception/1"}\n',
    "fields of other types": GOOD.replace(b'"good.png"', b"[]"),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_is_something_else_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    os.utime(path, (1, 1))
    with pytest.raises(DatasetError, match=r"results\.jsonl, line \d+"):
        JsonLinesSink(path)
    assert path.read_bytes() == content
    assert path.stat().st_mtime == 1


def test_an_impossible_place_is_refused(tmp_path: Path, path: Path) -> None:
    path.write_bytes(b"")
    for impossible in (tmp_path, path / "below.jsonl", tmp_path / ("x" * 300)):
        with pytest.raises(DatasetError, match="cannot be written"):
            JsonLinesSink(impossible)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pipe with a name")
def test_a_pipe_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(DatasetError):
        JsonLinesSink(pipe)


@pytest.mark.parametrize(
    ("line", "number"),
    [
        (b"nonsense\n", 2),
        (b"[]\n", 2),
        (b'{"schema":"pam.perception/9"}\n', 2),
        (b'{"schema":"pam.perception/1"}\n', 2),
        (GOOD[:50], 2),
        (GOOD.replace(b"good.png", b"g\xf6d.png"), 2),
        (GOOD.replace(b'"regions":[]', b'"regions":null'), 2),
    ],
)
def test_reading_something_else_names_the_line(path: Path, line: bytes, number: int) -> None:
    path.write_bytes(GOOD + line)
    with pytest.raises(SchemaError, match=rf"results\.jsonl, line {number}: "):
        list(read_results(path))


class Faulty:
    """A raw file whose next write fails, or stops early, after `good` bytes."""

    def __init__(self, file: Any, good: int, error: int | None, *, truncates: bool = True) -> None:
        self.file, self.good, self.error, self.truncates = file, good, error, truncates

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, data: memoryview) -> int:
        if self.good > 0:
            written = self.file.write(data[: self.good])
            self.good -= written
            return int(written)
        if self.error is None:
            return int(self.file.write(data[:7]))
        raise OSError(self.error, os.strerror(self.error))

    def truncate(self, size: int) -> int:
        if not self.truncates:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return int(self.file.truncate(size))


@pytest.mark.parametrize("good", [0, 1, 30, 400])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EDQUOT])
def test_of_a_write_that_fails_half_way_nothing_stays(path: Path, good: int, error: int) -> None:
    filled(path, 2)
    before = path.read_bytes()
    with closing(JsonLinesSink(path)) as sink:
        intact, sink._file = sink._file, Faulty(sink._file, good, error)  # type: ignore[assignment]
        with pytest.raises(DatasetError, match=f"{os.strerror(error)}.*run the same command again"):
            sink.write([as_result(make_perception("new.png", TRICKY))])
        assert path.read_bytes() == before
        assert not has(sink, "new.png")
        sink._file = intact
        sink.write([as_result(make_perception("new.png", TRICKY))])
    assert [p.image for p in read_results(path)] == ["0.png", "1.png", "new.png"]


def test_where_not_even_cleaning_up_works_the_next_run_does_it(path: Path) -> None:
    filled(path, 2)
    before = path.read_bytes()
    with closing(JsonLinesSink(path)) as sink:
        sink._file = Faulty(sink._file, 30, errno.EIO, truncates=False)  # type: ignore[assignment]
        with pytest.raises(DatasetError):
            sink.write([as_result(make_perception("new.png"))])
    assert len(path.read_bytes()) == len(before) + 30
    JsonLinesSink(path).close()
    assert path.read_bytes() == before


def test_writes_that_take_only_a_part_are_continued(path: Path) -> None:
    with closing(JsonLinesSink(path)) as sink:
        sink._file = Faulty(sink._file, 11, None)  # type: ignore[assignment]
        sink.write([as_result(make_perception("a.png", TRICKY))])
    assert list(read_results(path)) == [make_perception("a.png", TRICKY)]


def start(folder: Path, out: Path, *more: object) -> subprocess.Popen[bytes]:
    root = RUNNER.parents[3]
    paths = os.pathsep.join([str(root), str(root / "core")])
    return subprocess.Popen(
        [sys.executable, str(RUNNER), str(folder), str(out), *map(str, more)],
        env={**os.environ, "PYTHONPATH": paths, "PAM_PLUGINS": ""},
        stderr=subprocess.PIPE,
    )


def finish(folder: Path, out: Path, *more: object) -> tuple[int, str]:
    process = start(folder, out, *more)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors.decode()


def images(path: Path) -> list[str]:
    return [line["image"] for line in said(path)]


def wait_for_lines(process: subprocess.Popen[bytes], path: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.e2e
def test_killed_again_and_again_a_run_comes_out_the_same(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures", 200, 24, 16)
    (tmp_path / "pictures" / "0100.png").write_bytes(b"no picture")
    undisturbed, killed = tmp_path / "undisturbed.jsonl", tmp_path / "killed.jsonl"
    assert finish(tmp_path / "pictures", undisturbed) == (0, "")
    for lines in (3, 60, 150):
        process = start(tmp_path / "pictures", killed, 0.003)
        wait_for_lines(process, killed, lines)
        process.kill()
        process.communicate(timeout=60)
        assert killed.read_bytes().count(b"\n") < 200
    assert finish(tmp_path / "pictures", killed) == (0, "")

    done = [line for line in said(killed) if line["error"] is None]
    assert done == [line for line in said(undisturbed) if line["error"] is None]
    assert Counter(line["image"] for line in done) == {str(p): 1 for p in pictures if p.name != "0100.png"}
    failed = [line for line in said(killed) if line["error"] is not None]
    assert {line["image"] for line in failed} == {str(tmp_path / "pictures" / "0100.png")}
    assert len(failed) >= 2  # tried again after a kill that came later


@pytest.mark.e2e
@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("max_bytes", [1, 5000, 30_001])
def test_at_the_largest_size_allowed_only_whole_lines_are_kept(tmp_path: Path, max_bytes: int) -> None:
    pictures = write_pictures(tmp_path / "pictures", 40, 24, 16)
    out = tmp_path / "out.jsonl"
    code, errors = finish(tmp_path / "pictures", out, 0, max_bytes)
    assert code == 3, errors
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    assert out.stat().st_size <= max_bytes
    assert images(out) == [str(picture) for picture in pictures[: len(said(out))]]
    assert finish(tmp_path / "pictures", out) == (0, "")
    assert images(out) == [str(picture) for picture in pictures]


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except OSError:
        pytest.skip("there is no mount")
    if done.returncode != 0:
        pytest.skip("a file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.e2e
def test_on_a_full_disk_only_whole_lines_are_kept(tmp_path: Path, small_disk: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures", 60, 24, 16)
    (small_disk / "ballast").write_bytes(bytes(40_000))
    out = small_disk / "out.jsonl"
    code, errors = finish(tmp_path / "pictures", out)
    assert code == 3, errors
    assert os.strerror(errno.ENOSPC) in errors
    assert 0 < len(said(out)) < 60
    (small_disk / "ballast").unlink()
    assert images(out) == [str(picture) for picture in pictures[: len(said(out))]]
    code, errors = finish(tmp_path / "pictures", out)
    assert (code == 0) == (len(said(out)) == 60), errors
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes(out.read_bytes())
    assert finish(tmp_path / "pictures", moved) == (0, "")
    assert images(moved) == [str(picture) for picture in pictures]
