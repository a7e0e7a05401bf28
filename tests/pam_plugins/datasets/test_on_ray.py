"""Enrichment on Ray, as far as it goes without starting it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pam_core.errors import RayRunError
from pam_core.types import Perception
from pam_plugins.datasets import ray_runner
from pam_plugins.datasets.contracts import Job
from pam_plugins.datasets.ray_runner import CHUNK, LONGEST, UNDER_WAY, _chunks, _device, enrich
from pam_plugins.options import Options
from tests.factories import FAKE_INFO, make_perception
from tests.pam_plugins.datasets.conftest import ListSink, ListSource


def numbered(count: int) -> list[Job]:
    return [Job(Path(f"{number}.png"), id=str(number)) for number in range(count)]


class TestChunks:
    @pytest.mark.parametrize("count", [0, 1, CHUNK, CHUNK + 1, 5 * CHUNK - 1])
    def test_every_job_is_in_one_in_order(self, count: int) -> None:
        chunks = list(_chunks(iter(numbered(count)), lambda job: False))
        assert [job for chunk in chunks for job in chunk.to_do] == numbered(count)
        assert all(len(chunk.to_do) == CHUNK for chunk in chunks[:-1])

    def test_what_is_finished_takes_no_room(self) -> None:
        chunks = list(_chunks(iter(numbered(20)), lambda job: int(job.id) % 2 == 0))
        assert [len(chunk.jobs) for chunk in chunks] == [2 * CHUNK] * (20 // (2 * CHUNK)) + [20 % (2 * CHUNK)]
        assert [job.id for chunk in chunks for job in chunk.to_do] == [str(number) for number in range(1, 20, 2)]

    def test_none_is_endless(self) -> None:
        chunks = list(_chunks(iter(numbered(2 * LONGEST + 1)), lambda job: True))
        assert [len(chunk.jobs) for chunk in chunks] == [LONGEST, LONGEST, 1]

    def test_rows_go_to_the_jobs_that_were_to_be_done(self) -> None:
        (chunk,) = _chunks(iter(numbered(5)), lambda job: job.id in "024")
        seen = [make_perception("1.png"), make_perception("3.png")]
        rows = [step.row for step in chunk.steps(seen)]
        assert rows == [None, (numbered(2)[1], seen[0]), None, (numbered(4)[3], seen[1]), None]


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
    run = Options().run_id(FAKE_INFO, ())
    sink = ListSink([(job, make_perception(f"{job.id}.png", run=run)) for job in numbered(9)])
    monkeypatch.setattr(ray_runner, "_cluster", None)
    steps = list(enrich(ListSource(numbered(9)), sink, FAKE_INFO, Options(), 2))
    assert [step.row for step in steps] == [None] * 9
    assert sink.writes == []


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_runner, "find_spec", lambda name: None)
    with pytest.raises(RayRunError, match=r"pip install 'pam-plugins\[ray\]'"):
        list(enrich(ListSource(numbered(9)), ListSink(), FAKE_INFO, Options(), 2))


@pytest.mark.parametrize("address", ["ray://somewhere:1", "somewhere", "somewhere:", ":1", "a:b"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(RayRunError, match="wanted HOST:PORT"):
        list(enrich(ListSource(numbered(9)), ListSink(), FAKE_INFO, Options(), 2, address=address))


def test_an_address_where_nobody_is() -> None:
    with socket.socket() as taken:  # bound and not listening
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RayRunError, match=f"Nobody answers at {address}"):
            list(enrich(ListSource(numbered(9)), ListSink(), FAKE_INFO, Options(), 2, address=address))


def test_the_module_needs_no_ray() -> None:
    code = "import sys, pam_plugins.datasets.ray_runner; assert not {'ray', 'pyarrow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@dataclass
class Stub:
    """Stands in for `ray_actor`: everything happens at once, in this process; `spoil` may change what comes back."""

    spoil: Callable[[int, list[Perception]], tuple[int, list[Perception], str] | None] | None = None
    TRIES: int = 4
    desk: dict[int, list[Job]] = field(default_factory=dict)
    most: int = 0
    end: int | None = None
    closed: bool = False

    def open_desk(self) -> Stub:
        return self

    def put(self, desk: Stub, number: int, jobs: list[Job]) -> None:
        self.desk[number] = jobs
        self.most = max(self.most, len(self.desk))

    def finish(self, desk: Stub, count: int) -> None:
        self.end = count

    def drop(self, desk: Stub, number: int) -> None:
        del self.desk[number]

    def perceive(self, *_: object) -> Iterator[tuple[int, list[Perception], str]]:
        try:
            number = 0
            while number != self.end:
                seen = [make_perception(str(job.path), run=RUN) for job in self.desk[number]]
                answer = (number, seen, "") if self.spoil is None else self.spoil(number, seen)
                if answer is None:
                    return
                yield answer
                number += 1
        finally:
            self.closed = True


RUN = Options().run_id(FAKE_INFO, ())


class TestHandingOut:
    @pytest.fixture
    def stub(self, monkeypatch: pytest.MonkeyPatch) -> Stub:
        stub = Stub()
        monkeypatch.setattr(ray_runner, "_cluster", lambda *_: nullcontext("cpu"))
        monkeypatch.setattr("pam_plugins.datasets.ray_actor", stub, raising=False)
        monkeypatch.setitem(sys.modules, "pam_plugins.datasets.ray_actor", stub)
        return stub

    @pytest.mark.parametrize("count", [1, CHUNK, 3 * CHUNK + 1, 30 * CHUNK])
    @pytest.mark.parametrize("finished", [(), range(0, 200, 2), range(10), range(5, 200)])
    def test_rows_in_order_whatever_is_there_already(self, stub: Stub, count: int, finished: Sequence[int]) -> None:
        there = [(job, make_perception(run=RUN)) for job in numbered(count) if int(job.id) in finished]
        sink = ListSink(list(there))
        steps = list(enrich(ListSource(numbered(count)), sink, FAKE_INFO, Options(), 2))
        assert [step.row and step.row[0].id for step in steps] == [
            None if int(job.id) in finished else job.id for job in numbered(count)
        ]
        assert sink.rows[len(there) :] == [step.row for step in steps if step.row]
        assert all(Path(seen.image) == job.path for job, seen in sink.rows[len(there) :])
        assert stub.desk == {}

    def test_a_long_source_is_read_as_the_work_goes_on(self, stub: Stub) -> None:
        source = ListSource(numbered(10_000))
        steps = enrich(source, ListSink(), FAKE_INFO, Options(), 2)
        for _, _ in zip(range(100), steps, strict=False):
            pass
        assert source.taken <= 100 + CHUNK * (2 * UNDER_WAY + 1)
        assert stub.most <= 2 * UNDER_WAY
        steps.close()
        assert stub.closed

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (lambda number, seen: (number + 1, seen, ""), "Ray gave the rows of chunk 3; wanted those of 2"),
            (lambda number, seen: (number, [], "The model is ill."), "^The model is ill. What is finished is kept"),
            (lambda number, seen: (number, [], ""), "4 times an actor died over one of these pictures: 8, 9, 10, 11"),
            (lambda number, seen: None, "Ray ended before all rows were there"),
        ],
    )
    def test_what_goes_wrong_ends_the_run_and_keeps_the_rows(self, stub: Stub, answer: Any, said: str) -> None:
        stub.spoil = lambda number, seen: (number, seen, "") if number < 2 else answer(number, seen)
        sink = ListSink()
        with pytest.raises(RayRunError, match=said):
            list(enrich(ListSource(numbered(40)), sink, FAKE_INFO, Options(), 2))
        assert sink.ids == [str(number) for number in range(2 * CHUNK)]
        assert stub.closed


class TestDesk:
    def test_the_same_jobs_for_whoever_asks_until_their_rows_are_there(self) -> None:
        from pam_plugins.datasets.ray_actor import Desk

        async def work() -> None:
            desk = Desk()
            await desk.put(0, numbered(2))
            assert await desk.exists(0)
            assert await desk.take(0) == await desk.take(0) == numbered(2)
            await desk.drop(0)
            assert desk.jobs == {}
            assert await desk.exists(0), "a stream of numbers that is begun anew is the same"

        asyncio.run(work())

    def test_who_asks_for_more_waits_until_it_is_known(self) -> None:
        from pam_plugins.datasets.ray_actor import Desk

        async def work() -> None:
            desk = Desk()
            first, second = asyncio.ensure_future(desk.exists(0)), asyncio.ensure_future(desk.exists(1))
            await asyncio.sleep(0)
            assert not first.done()
            await desk.put(0, numbered(1))
            assert await first
            assert not second.done()
            await desk.finish(1)
            assert not await second
            assert await desk.exists(0)

        asyncio.run(work())

    def test_jobs_that_kill_whoever_takes_them(self) -> None:
        from pam_plugins.datasets.ray_actor import TRIES, Desk

        async def work() -> None:
            desk = Desk()
            await desk.put(0, numbered(2))
            for _ in range(TRIES):
                await desk.take(0)
            assert await desk.take(0) == []

        asyncio.run(work())
