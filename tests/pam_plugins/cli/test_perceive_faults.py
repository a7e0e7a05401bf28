"""`pam perceive`: failed pictures, full disks, Ctrl-C, and real processes."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pam_core.types import Picture
from pam_plugins.datasets.contracts import Result
from pam_plugins.datasets.jsonl import read_results
from pam_plugins.files import explained
from pam_plugins.hookspecs import hookimpl
from pam_plugins.plugins import get_plugins
from tests.factories import FakePlugin, Shape, shapes, write_picture, write_pictures
from tests.pam_plugins.cli.conftest import Pam


def test_some_failed_and_are_tried_again(pam: Pam, tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "in", 3)
    good = paths[1].read_bytes()
    paths[1].write_bytes(good[:60])
    out = tmp_path / "out.jsonl"
    result = pam(tmp_path / "in", "--out", out)
    assert result.exit_code == 1
    assert re.search(rf"failed {re.escape(str(paths[1]))}: damaged or cut short", result.stderr)
    assert "2 pictures" in result.stderr
    assert "1 failed" in result.stderr
    paths[1].write_bytes(good)
    result = pam(tmp_path / "in", "--out", out)
    assert result.exit_code == 0
    assert "2 taken over from an earlier run" in result.stderr
    done = [p.image for p in read_results(out) if p.error is None]
    assert sorted(done) == [str(path) for path in paths]


def test_a_prompt_outside_one_of_several_pictures(pam: Pam, scene: tuple[Path, list[Shape]], tmp_path: Path) -> None:
    small = write_pictures(tmp_path / "in", 1)[0]
    result = pam(scene[0], small, "--point", "100,80", "--out", tmp_path / "out.jsonl")
    assert result.exit_code == 1
    assert "Got the point (100, 80) outside the picture" in result.stderr
    assert small.name in result.stderr, "which of the pictures it was"
    assert [p.error is None for p in read_results(tmp_path / "out.jsonl")] == [True, False]


def interrupt_at_the_third(fake: FakePlugin) -> None:
    embed = fake.model.embed

    def at_the_third(pictures: Sequence[Picture]) -> Any:
        if fake.model.embeds == 2:
            raise KeyboardInterrupt
        return embed(pictures)

    fake.model.embed = at_the_third  # type: ignore[method-assign]


def test_an_interrupted_run_keeps_what_is_finished(pam: Pam, fake: FakePlugin, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 5)
    interrupt_at_the_third(fake)
    out, save = tmp_path / "out.jsonl", tmp_path / "saved"
    result = pam(tmp_path / "in", "--point", "1,1", "--out", out, "--save", save, "--export", "coco")
    assert result.exit_code == 130
    assert "stopped: 2 of 5 pictures are finished" in result.stderr
    assert str(out) in result.stderr
    assert len(list(read_results(out))) == 2
    assert len(json.loads((save / "coco.json").read_text())["images"]) == 2


class FullDisk:
    """A sink on a disk that is full: when it writes, or only when it closes."""

    name = "full"
    description = "fails"

    def __init__(self, when: str) -> None:
        self.when = when

    @hookimpl
    def pam_sinks(self) -> list[FullDisk]:
        return [self]

    def open(self, address: str) -> FullDisk:
        return self

    def write(self, results: Sequence[Result]) -> None:
        self._fail("write")

    def close(self) -> None:
        self._fail("close")

    def _fail(self, now: str) -> None:
        if self.when == now:
            with explained(Path("full"), resumable=True):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("when", ["write", "close"])
def test_a_full_disk_while_saving(pam: Pam, tmp_path: Path, when: str) -> None:
    write_pictures(tmp_path / "in", 2)
    out = tmp_path / "out.jsonl"
    with get_plugins().registered(FullDisk(when), "full disk"):
        result = pam(tmp_path / "in", "--out", out, "--save", tmp_path / "saved", "--export", "full")
    assert result.exit_code == 1
    assert os.strerror(errno.ENOSPC) in result.stderr
    assert "run the same command again: it goes on from there" in result.stderr
    assert len(list(read_results(out))) == 2


def command(python: Sequence[str], *arguments: object) -> list[str]:
    return [*python, "-m", "pam_plugins", "perceive", *map(str, arguments), "--model", "fake"]


# A process started in the background of a shell ignores SIGINT unless it says otherwise.
INTERRUPTIBLE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from pam_plugins.cli import main; main()"
)


@pytest.mark.e2e
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT")
def test_ctrl_c_in_the_middle_and_on_again(python: list[str], environment: dict[str, str], tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "in", 60)
    out = tmp_path / "out.jsonl"
    again = command(
        python, tmp_path / "in", "--point", "1,1", "--out", out, "--save", tmp_path / "s", "--export", "html"
    )
    process = subprocess.Popen(
        [*python, "-c", INTERRUPTIBLE, *again[len(python) + 2 :]],
        env={**environment, "FAKE_SECONDS": "0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    deadline = time.monotonic() + 60
    while not out.exists() or out.read_bytes().count(b"\n") < 5:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    kept = len(list(read_results(out)))
    told = re.search(r"stopped: (\d+) of 60 pictures are finished", errors)
    assert told, errors
    assert 5 <= kept < 60
    assert int(told[1]) in {kept, kept - 1}, "the last one may have been written and not yet counted"

    done = subprocess.run(
        again, env=environment, capture_output=True, text=True, encoding="utf-8", check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert f"{kept} taken over from an earlier run" in done.stderr
    assert Counter(p.image for p in read_results(out)) == {str(path): 1 for path in paths}
    page = (tmp_path / "s" / "index.html").read_text(encoding="utf-8")
    assert all(path.name in page for path in paths)


@pytest.mark.e2e
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_results_go_to_stdout_and_the_rest_to_stderr(
    python: list[str], environment: dict[str, str], tmp_path: Path, encoding: str
) -> None:
    """Through pipes, with names and answers in every alphabet, where the terminal may only do ASCII."""
    path = write_picture(tmp_path / "a.png", shapes(100, 80, 2)[0]).rename(tmp_path / "猫.png")
    done = subprocess.run(
        command(python, path, tmp_path / "none.png", "--point", "1,1", "--lang", "en,zh"),
        env={**environment, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"A white thing." in done.stdout
    assert b"no such file" in done.stderr
    assert b"\x1b" not in done.stdout + done.stderr


@pytest.mark.e2e
@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
def test_pictures_whose_names_are_not_utf8(python: list[str], environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    good = write_picture(folder / "a.png", shapes(40, 30, 2)[0]).rename(folder / os.fsdecode(b"caf\xe9.png"))
    bad = folder / os.fsdecode(b"\xff\xfe.png")
    bad.write_bytes(b"no picture")
    out = tmp_path / "out.jsonl"
    done = subprocess.run(
        command(python, folder, "--point", "1,1", "--out", out),
        env=environment,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert b"Traceback" not in done.stderr
    assert [(p.image, p.error is None) for p in read_results(out)] == [(str(good), True), (str(bad), False)]


def test_a_model_that_fails_to_load_is_told_in_one_sentence(
    pam: Pam, fake: FakePlugin, scene: tuple[Path, list[Shape]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An OSError here was once reported as a full disk."""

    def fail(name: str, device: str, compile: bool) -> None:
        raise OSError(errno.EACCES, "Permission denied", "weights.safetensors")

    monkeypatch.setattr("pam_plugins.plugins.load_model", fail)
    result = pam(scene[0])
    assert result.exit_code == 1
    assert "the model 'fake' could not be loaded: PermissionError" in result.stderr
    assert "make room" not in result.stderr


@pytest.mark.e2e
def test_a_second_run_into_one_file_is_refused_until_the_first_has_ended(
    python: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    paths = write_pictures(tmp_path / "in", 12)
    out = tmp_path / "out.jsonl"
    line = command(python, tmp_path / "in", "--point", "1,1", "--out", out)
    first = subprocess.Popen(line, env={**environment, "FAKE_SECONDS": "0.3"}, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not out.exists() or not out.read_bytes():
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    second = subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert first.poll() is None, "the first was done before the second began"
    assert second.returncode == 1
    assert f"{out} is being written by another process" in second.stderr
    first.kill()
    first.communicate(timeout=60)
    third = subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert third.returncode == 0, "a process that is killed leaves no lock"
    assert Counter(p.image for p in read_results(out)) == {str(path): 1 for path in paths}
