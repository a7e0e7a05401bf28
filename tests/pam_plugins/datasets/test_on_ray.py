"""Runs on Ray, as far as they go without starting it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest

from pam_core.errors import RayRunError
from pam_plugins.datasets import ray_runner
from pam_plugins.datasets.contracts import Job, Result
from pam_plugins.datasets.ray_runner import _device, run
from pam_plugins.options import Options
from tests.factories import FAKE_INFO, make_perception
from tests.pam_plugins.datasets.conftest import ListSink, ListSource

RUN = Options().run_id(FAKE_INFO, ())


def numbered(count: int) -> list[Job]:
    return [Job(Path(f"{number}.png"), id=str(number)) for number in range(count)]


def result_of(job: Job) -> Result:
    return Result(job, make_perception(str(job.path), run=RUN))


class TestDevice:
    @pytest.mark.parametrize(
        ("asked", "gpus", "given"),
        [("auto", 0, "cpu"), ("auto", 1, "cpu"), ("auto", 2, "cuda"), ("cpu", 2, "cpu"), ("cuda:1", 2, "cuda")],
    )
    def test_what_each_actor_gets(self, asked: str, gpus: int, given: str) -> None:
        assert _device(2, asked, {"CPU": 4.0, "GPU": float(gpus)}) == given

    def test_too_few(self) -> None:
        with pytest.raises(RayRunError, match="Got 2 actors with a GPU each; Ray has 1"):
            _device(2, "cuda", {"CPU": 4.0, "GPU": 1.0})
        with pytest.raises(RayRunError, match="Got 3 actors with a core each; Ray has 2"):
            _device(3, "auto", {"CPU": 2.0})


def test_where_all_is_finished_ray_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = ListSink([result_of(job) for job in numbered(9)])
    monkeypatch.setattr(ray_runner, "_cluster", None)
    results = list(run(ListSource(numbered(9)), [sink], FAKE_INFO, Options(), 2))
    assert [result.resumed for result in results] == [True] * 9
    assert sink.writes == []


@pytest.mark.parametrize("finished", [(), range(0, 20, 2), range(10), range(5, 20)])
def test_jobs_go_to_ray_in_slices_and_finished_ones_do_not(
    monkeypatch: pytest.MonkeyPatch, finished: Sequence[int]
) -> None:
    slices: list[int] = []

    def perceive(jobs: list[Job], *_: object) -> Iterator[Result]:
        slices.append(len(jobs))
        return map(result_of, jobs[::-1])

    monkeypatch.setattr(ray_runner, "SLICE", 6)
    monkeypatch.setattr(ray_runner, "_cluster", lambda *_: nullcontext("cpu"))
    monkeypatch.setattr(ray_runner, "_perceive", perceive)
    sink = ListSink([result_of(job) for job in numbered(20) if int(job.id) in finished])
    results = list(run(ListSource(numbered(20)), [sink], FAKE_INFO, Options(), 2))
    assert sorted(sink.ids, key=int) == [job.id for job in numbered(20)]
    assert {result.job.id for result in results if result.resumed} == {str(number) for number in finished}
    left = 20 - len(finished)
    assert slices == [6] * (left // 6) + ([left % 6] if left % 6 else [])


@pytest.mark.parametrize("address", ["ray://somewhere:1", "somewhere", "somewhere:", ":1", "a:b"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(RayRunError, match="wanted HOST:PORT"):
        list(run(ListSource(numbered(9)), [ListSink()], FAKE_INFO, Options(), 2, address=address))


def test_an_address_where_nothing_listens() -> None:
    with socket.socket() as taken:  # bound and not listening
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RayRunError, match=f"Nothing answers at {address}"):
            list(run(ListSource(numbered(9)), [ListSink()], FAKE_INFO, Options(), 2, address=address))


def test_the_module_needs_no_ray() -> None:
    code = "import sys, pam_plugins.datasets.ray_runner; assert not {'ray', 'pyarrow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
