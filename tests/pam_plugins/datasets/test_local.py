"""Enrichment in one process: order, batches, failures, and going on."""

from __future__ import annotations

from pathlib import Path

import pytest

from pam_core.errors import DatasetError
from pam_core.types import Prompt
from pam_plugins.datasets import batches
from pam_plugins.datasets.contracts import Job
from pam_plugins.datasets.local import enrich
from pam_plugins.options import Options
from pam_plugins.pipeline import READ_AHEAD
from tests.factories import FakeModel, write_pictures
from tests.pam_plugins.datasets.conftest import ListSink, ListSource

CLICK = (Prompt.at(1, 1),)


def jobs_for(folder: Path, count: int) -> list[Job]:
    return [Job(path, CLICK, str(number)) for number, path in enumerate(write_pictures(folder, count))]


def test_rows_are_those_of_the_jobs_in_order(tmp_path: Path) -> None:
    sink, jobs = ListSink(), jobs_for(tmp_path, 7)
    steps = list(enrich(ListSource(jobs), sink, FakeModel(), Options()))
    assert sink.ids == [job.id for job in jobs]
    assert [step.row for step in steps] == sink.rows
    assert all(perception.regions[0].prompt == CLICK[0] for _, perception in sink.rows)


@pytest.mark.parametrize(("wait", "writes"), [(0.0, [1] * 5), (1e9, [5])])
def test_rows_wait_for_one_another_only_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait: float, writes: list[int]
) -> None:
    monkeypatch.setattr(batches, "WRITE_SECONDS", wait)
    sink = ListSink()
    list(enrich(ListSource(jobs_for(tmp_path, 5)), sink, FakeModel(), Options()))
    assert sink.writes == writes


def test_what_is_finished_is_not_done_again(tmp_path: Path) -> None:
    sink, jobs, model = ListSink(), jobs_for(tmp_path, 6), FakeModel()
    list(enrich(ListSource(jobs[:4]), sink, model, Options()))
    steps = list(enrich(ListSource(jobs), sink, model, Options()))
    assert [step.row is None for step in steps] == [True] * 4 + [False] * 2
    assert sink.ids == [job.id for job in jobs]
    assert model.describes == 6


def test_with_other_options_everything_is_done_again(tmp_path: Path) -> None:
    sink, jobs, model = ListSink(), jobs_for(tmp_path, 3), FakeModel()
    list(enrich(ListSource(jobs), sink, model, Options()))
    list(enrich(ListSource(jobs), sink, model, Options(tasks=("label",))))
    assert model.describes == 6


def test_jobs_that_cannot_be_done_are_rows_with_the_reason(tmp_path: Path) -> None:
    jobs = jobs_for(tmp_path, 3)
    jobs[1] = Job(jobs[1].path, id="1", error="two left feet")
    jobs += [Job(tmp_path / "none.png", id="3"), Job(jobs[0].path, (Prompt.at(999, 1),), "4")]
    sink = ListSink()
    list(enrich(ListSource(jobs), sink, FakeModel(), Options()))
    said = [perception.error for _, perception in sink.rows]
    assert [error is None for error in said] == [True, False, True, False, False]
    assert "two left feet" in said[1] and "no such file" in said[3] and "outside the picture" in said[4]
    assert sink.ids == ["0", "1", "2", "3", "4"]


def test_a_long_source_is_read_as_the_work_goes_on(tmp_path: Path) -> None:
    source = ListSource(jobs_for(tmp_path, 9))
    steps = enrich(source, ListSink(), FakeModel(), Options())
    for number in range(1, 4):
        next(steps)
        assert source.taken <= number + READ_AHEAD
    steps.close()


def test_what_was_perceived_is_written_when_the_caller_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "WRITE_SECONDS", 1e9)
    sink = ListSink()
    steps = enrich(ListSource(jobs_for(tmp_path, 5)), sink, FakeModel(), Options())
    next(steps), next(steps)
    steps.close()
    assert sink.ids == ["0", "1"]


def test_what_was_perceived_is_written_when_the_model_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "WRITE_SECONDS", 1e9)
    model, sink = FakeModel(), ListSink()
    embed = model.embed

    def at_the_third(picture):  # type: ignore[no-untyped-def]
        if model.embeds == 2:
            raise KeyboardInterrupt
        return embed(picture)

    model.embed = at_the_third  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        list(enrich(ListSource(jobs_for(tmp_path, 5)), sink, model, Options()))
    assert sink.ids == ["0", "1"]


def test_rows_that_could_not_be_written_are_not_tried_a_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "WRITE_SECONDS", 0.0)
    calls = []

    class Full(ListSink):
        def write(self, rows):  # type: ignore[no-untyped-def]
            calls.append(len(rows))
            raise DatasetError("full")

    with pytest.raises(DatasetError, match="full"):
        list(enrich(ListSource(jobs_for(tmp_path, 3)), Full(), FakeModel(), Options()))
    assert calls == [1]
