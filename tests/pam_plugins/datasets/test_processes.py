"""`pam enrich` as users run it: processes that are killed and stopped, on Ray and without, and the same rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pam_core.media.images import read_picture
from pam_core.types import Prompt
from pam_plugins.datasets.ray_runner import BATCH, TRIES
from tests.factories import shapes, write_picture
from tests.pam_plugins.cli.conftest import ROOT
from tests.pam_plugins.cli.test_perceive_faults import INTERRUPTIBLE

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and SIGINT"),
    pytest.mark.timeout(600),
]

COUNT = 300
PATIENCE = 240
"""Seconds to wait for what takes a few on a machine that does nothing else."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 300 made-up pictures, one of them damaged, and a table of prompts for them, one of them wrong."""
    folder = tmp_path_factory.mktemp("pictures")
    rows = []
    for number in range(COUNT):
        picture, known = shapes(64, 48, 2 + number % 3)
        picture[0, :32] = (number % 256, number // 256, 77)
        path = write_picture(folder / f"{number:03}.png", picture)
        shape = known[number % len(known)]
        prompts = {
            0: [Prompt.at(*shape.centre)],
            1: [Prompt(box=shape.box), Prompt.at(*known[0].centre)],
            2: [Prompt.from_mask(shape.mask)],
            3: [],
        }[number % 4]
        rows.append({"id": f"sample-{number}", "image": str(path), "prompts": _json(prompts)})
    rows[7]["prompts"] = _json([Prompt.at(500, 1)])
    (folder / "201.png").write_bytes((folder / "201.png").read_bytes()[:60])
    pq.write_table(pa.Table.from_pylist(rows), folder / "table.parquet")
    return folder


def _json(prompts: list[Prompt]) -> str | None:
    return json.dumps([prompt.to_json() for prompt in prompts]) if prompts else None


class Pam:
    """`pam enrich` on the table of pictures, in processes of their own that log each picture they look at."""

    def __init__(self, pictures: Path, folder: Path, environment: dict[str, str]) -> None:
        self.pictures, self.folder, self.environment = pictures, folder, environment
        self.log = folder / "log"

    def start(self, sink: str, *options: str, seconds: float = 0.0, **more: str) -> subprocess.Popen[str]:
        arguments = ["enrich", f"parquet:{self.pictures / 'table.parquet'}", f"parquet:{self.folder / sink}"]
        return subprocess.Popen(
            [sys.executable, "-c", INTERRUPTIBLE, *arguments, "--model", "fake", *options],
            env={**self.environment, "FAKE_SECONDS": str(seconds), "FAKE_LOG": str(self.log), **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def finish(self, sink: str, *options: str) -> str:
        """Run to the end, where two pictures have failed; what it said."""
        return self.end(self.start(sink, *options), 1)

    def end(self, process: subprocess.Popen[str], code: int) -> str:
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == code, errors
        assert "Traceback" not in errors
        return errors

    def table(self, sink: str) -> pa.Table:
        return pq.read_table(self.folder / sink)

    def seen(self) -> list[tuple[int, str]]:
        """The process and the picture, in the order in which they were looked at."""
        lines = self.log.read_text().split("\n")[:-1] if self.log.exists() else []
        return [(int(pid), digest) for pid, digest in map(str.split, lines)]

    def digests(self, table: pa.Table) -> list[str]:
        """What the log calls the pictures of the rows that did not fail."""
        good = [row["image"] for row in table.select(["image", "error"]).to_pylist() if row["error"] is None]
        return [f"{zlib.crc32(read_picture(path).tobytes()):08x}" for path in good]


@pytest.fixture
def pam(pictures: Path, tmp_path: Path, environment: dict[str, str]) -> Pam:
    return Pam(pictures, tmp_path, environment)


@pytest.fixture
def whole(pam: Pam) -> Iterator[pa.Table]:
    """The rows of a run in one process that nothing happened to; the log is empty again."""
    said = pam.finish("whole")
    assert f"{COUNT - 2} pictures" in said and "2 failed" in said
    pam.log.unlink()
    yield pam.table("whole")


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_rows_are_what_was_asked_for(whole: pa.Table) -> None:
    assert whole["id"].to_pylist() == [f"sample-{number}" for number in range(COUNT)]
    failed = [index for index, error in enumerate(whole["error"].to_pylist()) if error is not None]
    assert failed == [7, 201]
    assert [len(regions) for regions in whole["regions"].to_pylist()[:6]] == [1, 2, 1, 2 + 1, 1, 2]


def test_killed_in_the_middle_and_on_again(pam: Pam, whole: pa.Table) -> None:
    process = pam.start("out", seconds=0.01)
    wait_for(lambda: len(list((pam.folder / "out").glob("part-*"))) >= 4, process)
    process.kill()
    process.communicate(timeout=PATIENCE)
    kept = pam.table("out")
    assert 4 <= len(kept) < COUNT
    assert kept.equals(whole.slice(0, len(kept)))

    said = pam.finish("out")
    finished = len(pam.digests(kept))
    assert f"{finished} taken over from an earlier run" in said
    table = pam.table("out")
    assert table.sort_by("id").equals(whole.sort_by("id"))
    again = [row["id"] for row in kept.select(["id", "error"]).to_pylist() if row["error"] is not None]
    assert [key for key in table["id"].to_pylist() if key not in again] == [
        key for key in whole["id"].to_pylist() if key not in again
    ]
    looks = Counter(digest for _, digest in pam.seen())
    assert {looks[digest] for digest in pam.digests(kept)} == {1}
    assert set(pam.digests(whole)) <= set(looks)


def test_on_ray_with_an_actor_killed_in_the_middle(pam: Pam, whole: pa.Table) -> None:
    process = pam.start("out", "--actors", "2", seconds=0.1)
    with suppress_leftovers(process):
        wait_for(lambda: len(pam.seen()) >= 60 and len({pid for pid, _ in pam.seen()}) == 2, process)
        assert addresses_listened_at(process.pid) == {"127.0.0.1"}
        victim = pam.seen()[-1][0]
        os.kill(victim, signal.SIGKILL)
        at_the_kill = len(pam.seen())
        said = pam.end(process, 1)
    assert f"{COUNT - 2} pictures" in said and "2 failed" in said
    assert pam.table("out").sort_by("id").equals(whole.sort_by("id")), "the same rows, in any order"

    assert at_the_kill < len(whole) - 2 * BATCH, "it was killed in the middle"
    pids = {pid for pid, _ in pam.seen()}
    assert len(pids) == 3, "Ray has started another in its place"
    looks = Counter(digest for _, digest in pam.seen())
    assert set(pam.digests(whole)) <= set(looks)
    assert sum(looks.values()) - len(looks) <= BATCH, "the batch of the one that died, and no more"


def test_stopped_on_ray_and_on_again_without(pam: Pam, whole: pa.Table) -> None:
    process = pam.start("out", "--actors", "2", seconds=0.1)
    with suppress_leftovers(process) as children:
        wait_for(lambda: list((pam.folder / "out").glob("part-*")), process)
        children.extend(psutil.Process(process.pid).children(recursive=True))
        process.send_signal(signal.SIGINT)
        said = pam.end(process, 130)
        assert psutil.wait_procs(children, timeout=PATIENCE)[1] == [], "all of Ray is gone"
    assert "the same command goes on from there" in said
    kept = pam.table("out")
    assert 0 < len(kept) < COUNT
    assert set(kept["id"].to_pylist()) <= set(whole["id"].to_pylist())
    pam.finish("out")
    assert pam.table("out").sort_by("id").equals(whole.sort_by("id"))


class suppress_leftovers:
    """End what a failed test would leave running: the process and those that it started."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.children: list[psutil.Process] = []

    def __enter__(self) -> list[psutil.Process]:
        return self.children

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            started = psutil.Process(self.process.pid).children(recursive=True)
            for each in [psutil.Process(self.process.pid), *started]:
                with suppress(psutil.NoSuchProcess):
                    each.kill()


def addresses_listened_at(pid: int) -> set[str]:
    """The addresses at which a process and those that it started can be reached."""
    found = set()
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            for each in process.net_connections("inet"):
                if each.status == psutil.CONN_LISTEN:
                    found.add(each.laddr.ip.removeprefix("::ffff:"))
    return found


def test_the_embedded_model_sees_the_same_ray_runner(tmp_path: Path, environment: dict[str, str]) -> None:
    photos = ROOT / "tests" / "data" / "photos"
    clicks = [json.loads(line) for line in (ROOT / "examples" / "clicks.jsonl").read_text().splitlines()[:6]]
    asked: dict[str, list[Any]] = {}
    for click in clicks:
        asked.setdefault(str(photos / Path(click["image"]).name), []).append({"points": click["points"]})
    rows = [{"id": Path(path).stem, "image": path, "prompts": json.dumps(said)} for path, said in asked.items()]
    assert len(rows) >= 2
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "table.parquet")
    for sink, options in (("local", ()), ("ray", ("--actors", "2"))):
        line = ["enrich", f"parquet:{tmp_path / 'table.parquet'}", f"parquet:{tmp_path / sink}", "--model", "lite"]
        done = subprocess.run(
            [sys.executable, "-m", "pam_plugins", *line, *options],
            env={**environment, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        assert f"{len(rows)} pictures, {len(clicks)} regions" in done.stderr
    local, on_ray = (pq.read_table(tmp_path / sink).sort_by("id") for sink in ("local", "ray"))
    assert local.equals(on_ray)


def test_a_picture_that_ends_every_actor_is_named(pam: Pam) -> None:
    """The process of the model ends without a word, as where the memory is full."""
    process = pam.start("out", "--actors", "2", FAKE_FATAL="100.png")
    with suppress_leftovers(process):
        errors = pam.end(process, 1)
    assert f"{TRIES} times an actor died over one of these pictures: " in errors
    named = errors.partition("these pictures: ")[2].partition(". What is finished is kept")[0].split(", ")
    assert "sample-100" in named and len(named) <= BATCH
    assert sorted([*pam.table("out")["id"].to_pylist(), *named]) == sorted(f"sample-{n}" for n in range(COUNT))


def test_a_model_that_cannot_be_loaded_on_ray_is_a_sentence(pam: Pam) -> None:
    process = pam.start("out", "--actors", "2", FAKE_BROKEN="1")
    with suppress_leftovers(process):
        errors = pam.end(process, 1)
    assert errors.count("The model 'fake' could not be loaded: OSError: no weights.") == 1
