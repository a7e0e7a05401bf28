"""The pipeline in one process: order, batches, failures, and resuming."""

from __future__ import annotations

from pathlib import Path

import pytest

from pam_core.errors import DatasetError
from pam_core.types import Prompt
from pam_plugins import pipeline
from pam_plugins.datasets.contracts import Job
from pam_plugins.options import Options
from pam_plugins.pipeline import READ_AHEAD, run
from tests.factories import FakeModel, write_pictures
from tests.pam_plugins.datasets.conftest import ListSink, ListSource

CLICK = (Prompt.at(1, 1),)


def jobs_for(folder: Path, count: int) -> list[Job]:
    return [Job(path, CLICK, str(number)) for number, path in enumerate(write_pictures(folder, count))]


def test_results_are_those_of_the_jobs_in_order(tmp_path: Path) -> None:
    sink, jobs = ListSink(), jobs_for(tmp_path, 7)
    results = list(run(ListSource(jobs), [sink], FakeModel(), Options()))
    assert sink.ids == [job.id for job in jobs]
    assert results == sink.results
    assert all(result.perception.regions[0].prompt == CLICK[0] for result in sink.results)


@pytest.mark.parametrize(("wait", "writes"), [(0.0, [1] * 5), (1e9, [5])])
def test_rows_wait_for_one_another_only_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait: float, writes: list[int]
) -> None:
    monkeypatch.setattr(pipeline, "WRITE_SECONDS", wait)
    sink = ListSink()
    list(run(ListSource(jobs_for(tmp_path, 5)), [sink], FakeModel(), Options()))
    assert sink.writes == writes


def test_what_is_finished_is_not_done_again(tmp_path: Path) -> None:
    sink, jobs, model = ListSink(), jobs_for(tmp_path, 6), FakeModel()
    list(run(ListSource(jobs[:4]), [sink], model, Options()))
    results = list(run(ListSource(jobs), [sink], model, Options()))
    assert [result.resumed for result in results] == [True] * 4 + [False] * 2
    assert sink.ids == [job.id for job in jobs]
    assert model.describes == 6


def test_with_other_options_everything_is_done_again(tmp_path: Path) -> None:
    sink, jobs, model = ListSink(), jobs_for(tmp_path, 3), FakeModel()
    list(run(ListSource(jobs), [sink], model, Options()))
    list(run(ListSource(jobs), [sink], model, Options(tasks=("label",))))
    assert model.describes == 6


def test_jobs_that_cannot_be_done_are_rows_with_the_reason(tmp_path: Path) -> None:
    jobs = jobs_for(tmp_path, 3)
    jobs[1] = Job(jobs[1].path, id="1", error="two left feet")
    jobs += [Job(tmp_path / "none.png", id="3"), Job(jobs[0].path, (Prompt.at(999, 1),), "4")]
    sink = ListSink()
    list(run(ListSource(jobs), [sink], FakeModel(), Options()))
    errors = [result.perception.error for result in sink.results]
    assert [error is None for error in errors] == [True, False, True, False, False]
    assert "two left feet" in errors[1] and "no such file" in errors[3] and "outside the picture" in errors[4]
    assert sink.ids == ["0", "1", "2", "3", "4"]


def test_a_long_source_is_read_as_the_work_goes_on(tmp_path: Path) -> None:
    source = ListSource(jobs_for(tmp_path, 9))
    results = run(source, [ListSink()], FakeModel(), Options())
    for number in range(1, 4):
        next(results)
        assert source.taken <= number + READ_AHEAD
    results.close()


def test_what_was_perceived_is_written_when_the_caller_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "WRITE_SECONDS", 1e9)
    sink = ListSink()
    results = run(ListSource(jobs_for(tmp_path, 5)), [sink], FakeModel(), Options())
    next(results), next(results)
    results.close()
    assert sink.ids == ["0", "1"]


def test_what_was_perceived_is_written_when_the_model_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "WRITE_SECONDS", 1e9)
    model, sink = FakeModel(), ListSink()
    embed = model.embed

    def at_the_third(pictures):  # type: ignore[no-untyped-def]
        if model.embeds == 2:
            raise KeyboardInterrupt
        return embed(pictures)

    model.embed = at_the_third  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        list(run(ListSource(jobs_for(tmp_path, 5)), [sink], model, Options()))
    assert sink.ids == ["0", "1"]


def test_results_that_could_not_be_written_are_not_tried_a_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "WRITE_SECONDS", 0.0)
    calls = []

    class Full(ListSink):
        def write(self, results):  # type: ignore[no-untyped-def]
            calls.append(len(results))
            raise DatasetError("full")

    with pytest.raises(DatasetError, match="full"):
        list(run(ListSource(jobs_for(tmp_path, 3)), [Full()], FakeModel(), Options()))
    assert calls == [1]


def test_a_list_of_jobs_is_a_source_and_every_sink_gets_every_result(tmp_path: Path) -> None:
    first, second, jobs = ListSink(), ListSink(), jobs_for(tmp_path, 3)
    list(run(jobs[:2], [first], FakeModel(), Options()))
    results = list(run(jobs, [first, second], FakeModel(), Options()))
    assert [result.resumed for result in results] == [True, True, False]
    assert first.ids == second.ids == ["0", "1", "2"]
    assert second.results == results
    assert all(result.picture() is not None for result in results)
