"""Parquet: rows there and back, tables as sources, and a folder of parts that survives what may happen to it."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pam_core.errors import DatasetError
from pam_core.types import ModelRef, Perception, Prompt
from pam_plugins.datasets import parquet_sink
from pam_plugins.datasets.contracts import Job, Result
from pam_plugins.datasets.parquet import ParquetSourceFormat
from pam_plugins.datasets.parquet_rows import SCHEMA, escaped, to_perception, to_table, unescaped
from pam_plugins.datasets.parquet_sink import TOGETHER, ParquetSink
from pam_plugins.datasets.parquet_source import ParquetSource
from tests.core import strategies
from tests.factories import make_perception, make_region

ANY_WORDS = st.text(st.characters(), max_size=12) | strategies.words


def row(key: int | str, *, run: str = "run", error: str | None = None, regions: int = 1) -> Result:
    image = f"{key}.png"
    perception = make_perception(image, *[make_region()] * (0 if error else regions), run=run, error=error)
    return Result(Job(Path(image), (), str(key)), perception)


class TestRows:
    @given(strategies.perceptions, st.lists(strategies.prompts(), max_size=2), ANY_WORDS)
    def test_they_come_back_as_they_were(self, perception: Perception, prompts: list[Prompt], key: str) -> None:
        table = to_table([Result(Job(Path("a.png"), tuple(prompts), key), perception)])
        kept = replace(perception, seconds={}, model=replace(perception.model, description=""))
        (record,) = table.to_pylist()
        assert to_perception(record) == kept
        assert unescaped(record["id"]) == (key or "a.png")
        assert [region["area"] for region in record["regions"]] == [each.mask.area for each in perception.regions]

    @given(st.text(st.characters()))
    def test_any_text_can_be_held(self, text: str) -> None:
        pa.array([escaped(text)])
        assert unescaped(escaped(text)) == unescaped(text)
        if "\\ud" not in text:
            assert unescaped(escaped(text)) == text

    def test_what_the_columns_say(self) -> None:
        region = make_region(predicted_iou=0.5, texts={"label": {"en": "cat"}}, scores={"label": 0.25})
        job = Job(Path("a.png"), (Prompt.at(1, 2),), "7")
        (record,) = to_table([Result(job, make_perception("a.png", region, seconds={"read": 1.0}))]).to_pylist()
        (seen,) = record.pop("regions")
        assert json.loads(seen.pop("region")) == region.to_json()
        assert seen == {"label": "cat", "score": 0.25, "box": [2, 1, 7, 4], "area": 15, "predicted_iou": 0.5}
        assert json.loads(record.pop("prompts")) == [{"points": [[1, 2, 1]]}]
        assert record == {
            "id": "7",
            "image": "a.png",
            "width": 8,
            "height": 6,
            "model": "fake",
            "revision": "1",
            "run": "run",
            "error": None,
        }

    def test_timings_are_left_out(self) -> None:
        result = row(1)
        timed = Result(result.job, replace(result.perception, seconds={"read": 3.0}))
        assert to_table([timed]).equals(to_table([result]))


def write_table(path: Path, **columns: list[Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


class TestSource:
    def test_a_table(self, tmp_path: Path) -> None:
        prompts = [Prompt.at(1, 2), Prompt(box=(0, 0, 3, 3))]
        path = write_table(
            tmp_path / "t.parquet",
            id=["a", "b", "c"],
            image=["x.png", "y.png", "z.png"],
            prompts=[json.dumps([p.to_json() for p in prompts]), None, json.dumps(prompts[0].to_json())],
            other=[1, 2, 3],
        )
        source = ParquetSourceFormat().open(str(path))
        assert len(source) == 3
        assert list(source.jobs()) == [
            Job(Path("x.png"), tuple(prompts), "a"),
            Job(Path("y.png"), (), "b"),
            Job(Path("z.png"), (prompts[0],), "c"),
        ]

    def test_whole_numbers_as_ids_and_no_prompts(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "t.parquet", id=[5, 4], image=["x.png", "y.png"])
        assert [job.id for job in ParquetSource(path).jobs()] == ["5", "4"]

    def test_a_folder_of_several_files(self, tmp_path: Path) -> None:
        write_table(tmp_path / "b.parquet", id=[3], image=["z.png"])
        write_table(tmp_path / "a.parquet", id=[1, 2], image=["x.png", "y.png"])
        (tmp_path / "_c.parquet").write_text("not yet")
        assert [job.id for job in ParquetSource(tmp_path).jobs()] == ["1", "2", "3"]

    @given(st.lists(strategies.prompts(), max_size=2))
    def test_rows_of_an_earlier_run_ask_the_same_again(self, prompts: list[Prompt]) -> None:
        job = Job(Path("a.png"), tuple(prompts), "7")
        table = to_table([Result(job, make_perception("a.png"))])
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        source = ParquetSource.__new__(ParquetSource)
        source.files = [pa.BufferReader(sink.getvalue())]
        assert list(source.jobs()) == [job]

    def test_a_row_whose_prompts_were_unreadable_stays_so(self, tmp_path: Path) -> None:
        job = Job(Path("a.png"), id="7", error="two left feet")
        pq.write_table(
            to_table([Result(job, make_perception("a.png", error="two left feet"))]), tmp_path / "t.parquet"
        )
        (again,) = ParquetSource(tmp_path / "t.parquet").jobs()
        assert again.error is not None and "empty list" in again.error

    @pytest.mark.parametrize("prompts", ["{", "[]", "7", '[{"points": [[1]]}]', '{"mask": {}}', "{}", "null"])
    def test_prompts_that_are_wrong_cost_their_picture_only(self, tmp_path: Path, prompts: str) -> None:
        path = write_table(tmp_path / "t.parquet", id=["a", "b"], image=["x.png", "y.png"], prompts=[prompts, None])
        bad, good = ParquetSource(path).jobs()
        assert bad.error is not None and bad.error.startswith("The prompts of row a: ")
        assert good == Job(Path("y.png"), id="b")

    def test_a_row_without_an_image_costs_itself_only(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "t.parquet", id=["a", "b"], image=[None, "y.png"])
        bad, good = ParquetSource(path).jobs()
        assert bad.error == "Row a: got the image None; wanted a path."
        assert good.error is None

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            ({"id": ["a"]}, "has no column image"),
            ({"name": ["a"]}, "has no column id and no image"),
            ({"id": ["a", "a"], "image": ["x", "y"]}, "the id 'a' is there twice"),
            ({"id": ["a", None], "image": ["x", "y"]}, "got the id None"),
            ({"id": [1.5], "image": ["x"]}, "got the id 1.5"),
            ({"id": pa.array([], pa.string()), "image": pa.array([], pa.string())}, "holds no row"),
        ],
    )
    def test_tables_that_are_something_else(self, tmp_path: Path, columns: dict[str, Any], said: str) -> None:
        with pytest.raises(DatasetError, match=said):
            ParquetSource(write_table(tmp_path / "t.parquet", **columns))

    def test_files_that_are_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "t.parquet").write_text("no table")
        with pytest.raises(DatasetError, match="cannot be read"):
            ParquetSource(tmp_path / "t.parquet")
        with pytest.raises(DatasetError, match="cannot be read"):
            ParquetSource(tmp_path / "none.parquet")


def ids(folder: Path) -> list[str]:
    """As any reader sees them."""
    seen = pyarrow.dataset.dataset(folder, format="parquet").to_table()["id"].to_pylist()
    assert pd.read_parquet(folder)["id"].to_list() == seen
    return seen


def finished(folder: Path) -> dict[str, str]:
    """The run of each finished row, as a new sink has it."""
    sink = ParquetSink(folder)
    runs = dict(sink._runs)
    sink.close()
    return runs


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "_lock")


class TestSink:
    def test_rows_are_there_when_write_returns_and_a_file_is_left_at_the_end(self, tmp_path: Path) -> None:
        sink = ParquetSink(tmp_path / "out")
        for number in range(3):
            sink.write([row(2 * number), row(2 * number + 1)])
            assert ids(tmp_path / "out") == [str(key) for key in range(2 * number + 2)]
        sink.close()
        sink.close()
        assert parts(tmp_path / "out") == ["part-000000001-000000003.parquet"]
        assert ids(tmp_path / "out") == [str(key) for key in range(6)]
        table = pq.read_table(tmp_path / "out")
        assert table.schema == SCHEMA
        assert table.equals(to_table([row(key) for key in range(6)]))

    def test_many_writes_leave_few_parts_in_order(self, tmp_path: Path) -> None:
        sink = ParquetSink(tmp_path)
        for key in range(300):
            sink.write([row(key, regions=0)])
            assert len(parts(tmp_path)) <= 2 * TOGETHER
        assert ids(tmp_path) == [str(key) for key in range(300)]
        assert parts(tmp_path)[0] == "part-000000001-000000256.parquet"

    def test_parts_are_not_put_together_beyond_a_size(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parquet_sink, "PART_BYTES", 1)
        sink = ParquetSink(tmp_path)
        for key in range(20):
            sink.write([row(key)])
        sink.close()
        assert len(parts(tmp_path)) == 20

    def test_going_on(self, tmp_path: Path) -> None:
        sink = ParquetSink(tmp_path)
        assert sink._runs == {}
        sink.write([row(1), row(2, run="other"), row(3, error="bad")])
        assert sink._runs == {"1": "run", "2": "other"}
        sink.close()
        again = ParquetSink(tmp_path)
        assert again._runs == {"1": "run", "2": "other"}
        again.write([row(4)])
        again.close()
        assert ids(tmp_path) == ["1", "2", "3", "4"]

    @pytest.mark.parametrize("closed", [True, False])
    def test_a_row_done_again_replaces_the_old_one(self, tmp_path: Path, closed: bool) -> None:
        sink = ParquetSink(tmp_path)
        sink.write([row(1, error="bad"), row(2)])
        if closed:
            sink.close()
        else:
            sink._lock.release()
        again = ParquetSink(tmp_path)
        again.write([row(1, regions=2), row(3)])
        assert again._runs == {"1": "run", "2": "run", "3": "run"}
        again.close()
        assert ids(tmp_path) == ["2", "1", "3"]
        table = pq.read_table(tmp_path)
        assert table["error"].to_pylist() == [None] * 3
        assert [len(regions) for regions in table["regions"].to_pylist()] == [1, 2, 1]
        assert finished(tmp_path) == {"1": "run", "2": "run", "3": "run"}

    def test_a_finished_row_that_fails_later_is_finished_no_more(self, tmp_path: Path) -> None:
        sink = ParquetSink(tmp_path)
        sink.write([row(1)])
        sink.write([row(1, run="new", error="bad")])
        assert sink._runs == {}
        sink.close()
        assert finished(tmp_path) == {}

    def test_a_row_that_is_twice_in_one_write(self, tmp_path: Path) -> None:
        sink = ParquetSink(tmp_path)
        sink.write([row(1, error="bad"), row(1)])
        assert ids(tmp_path) == ["1"]
        assert sink._runs == {"1": "run"}

    def test_rows_done_again_while_parts_are_joined(self, tmp_path: Path) -> None:
        sink = ParquetSink(tmp_path)
        for key in range(TOGETHER - 1):
            sink.write([row(key)])
        sink.write([row(3, regions=2)])
        assert ids(tmp_path) == [*(str(key) for key in range(TOGETHER - 1) if key != 3), "3"]
        sink.write([row(5, regions=3)])
        sink.close()
        assert ids(tmp_path)[-2:] == ["3", "5"]
        assert len(ids(tmp_path)) == TOGETHER - 1

    def test_ids_that_are_not_utf8(self, tmp_path: Path) -> None:
        key = os.fsdecode(b"caf\xe9.png")
        sink = ParquetSink(tmp_path)
        sink.write([row(key)])
        sink.close()
        again = ParquetSink(tmp_path)
        assert again._runs == {key: "run"}
        assert [job.id for job in ParquetSource(tmp_path).jobs()] == [key]
        assert [job.path for job in ParquetSource(tmp_path).jobs()] == [Path(f"{key}.png")]
        again.write([row(key, regions=2)])
        again.close()
        assert len(ids(tmp_path)) == 1

    def test_a_crash_before_a_part_has_its_name(self, tmp_path: Path) -> None:
        ParquetSink(tmp_path).write([row(1)])
        (tmp_path / "_part-000000002-000000002.parquet").write_bytes(b"PAR1 and no more")
        assert ids(tmp_path) == ["1"]
        assert finished(tmp_path) == {"1": "run"}
        assert parts(tmp_path) == ["part-000000001-000000001.parquet"]

    def test_a_crash_before_joined_parts_are_gone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sink = ParquetSink(tmp_path)
        for key in range(3):
            sink.write([row(key)])
        monkeypatch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sink.close()
        monkeypatch.undo()
        assert len(parts(tmp_path)) == 4
        again = ParquetSink(tmp_path)
        assert parts(tmp_path) == ["part-000000001-000000003.parquet"]
        assert again._runs == {"0": "run", "1": "run", "2": "run"}

    def test_a_damaged_part_is_named_and_left_alone(self, tmp_path: Path) -> None:
        sink = ParquetSink(tmp_path)
        sink.write([row(1)])
        sink.write([row(2)])
        sink._lock.release()
        path = tmp_path / "part-000000001-000000001.parquet"
        data = path.read_bytes()[:-20]
        path.write_bytes(data)
        with pytest.raises(DatasetError, match=rf"{path.name} is damaged .* Move it out of the folder"):
            ParquetSink(tmp_path)
        assert path.read_bytes() == data
        path.rename(tmp_path.parent / "damaged")
        assert finished(tmp_path) == {"2": "run"}

    def test_damage_found_when_parts_are_joined_costs_nothing_else(self, tmp_path: Path) -> None:
        sink = ParquetSink(tmp_path)
        for key in range(3):
            sink.write([row(key)])
        path = tmp_path / "part-000000002-000000002.parquet"
        path.write_bytes(b"x" * 50)
        with pytest.raises(DatasetError, match=rf"{path.name} is damaged"):
            sink.close()
        assert len(parts(tmp_path)) == 3
        path.unlink()
        assert finished(tmp_path) == {"0": "run", "2": "run"}

    @pytest.mark.parametrize("when", ["write", "join"])
    def test_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
        sink = ParquetSink(tmp_path)
        sink.write([row(1)])
        sink.write([row(2)])

        def full(handle: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(parquet_sink.os, "fsync", full)
        with pytest.raises(DatasetError, match=r"No space left .* goes on from there"):
            sink.write([row(3)]) if when == "write" else sink.close()
        sink.close()
        monkeypatch.undo()
        assert ids(tmp_path) == ["1", "2"]
        again = ParquetSink(tmp_path)
        again.write([row(3)])
        again.close()
        assert parts(tmp_path) == ["part-000000001-000000003.parquet"]
        assert ids(tmp_path) == ["1", "2", "3"]

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_a_disk_that_is_really_full(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sink = ParquetSink(tmp_path)
        opened = Path.open
        monkeypatch.setattr(Path, "open", lambda path, mode: opened(Path("/dev/full"), mode))
        with pytest.raises(DatasetError, match="No space left"):
            sink.write([row(1)])
        monkeypatch.undo()
        sink.close()
        assert parts(tmp_path) == []

    def test_two_at_once(self, tmp_path: Path) -> None:
        sink = ParquetSink(tmp_path)
        with pytest.raises(DatasetError, match="is being written by another process"):
            ParquetSink(tmp_path)
        sink.close()
        ParquetSink(tmp_path).close()

    def test_a_folder_of_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "cat.jpg").write_bytes(b"")
        with pytest.raises(DatasetError, match=r"holds cat\.jpg"):
            ParquetSink(tmp_path)
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(DatasetError, match="cannot be written"):
            ParquetSink(tmp_path / "file")

    def test_a_part_with_other_columns(self, tmp_path: Path) -> None:
        write_table(tmp_path / "part-000000001-000000001.parquet", id=["a"])
        with pytest.raises(DatasetError, match="written by another version"):
            ParquetSink(tmp_path)

    def test_a_model_of_another_name_is_kept(self, tmp_path: Path) -> None:
        result = row(1)
        sink = ParquetSink(tmp_path)
        sink.write([Result(result.job, replace(result.perception, model=ModelRef("猫", "\x00")))])
        (record,) = pq.read_table(tmp_path).to_pylist()
        assert to_perception(record).model == ModelRef("猫", "\x00")

    @pytest.mark.parametrize("closed", [True, False])
    def test_perceptions_are_read_back(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: bool) -> None:
        monkeypatch.setattr(parquet_sink, "GROUP_ROWS", 4)
        results = [row(key, regions=key % 3) for key in range(20)]
        sink = ParquetSink(tmp_path)
        for result in results:
            sink.write([row(result.job.id, error="first")])
            sink.write([result])
        if closed:
            sink.close()
            sink = ParquetSink(tmp_path)
        for result in [*results, *results[::-7]]:
            assert sink.has(result.job, "run") and not sink.has(result.job, "other")
            assert sink.read(result.job, "run") == replace(
                result.perception, model=replace(result.perception.model, description="")
            )
        sink.write([row(3, run="new", regions=5)])
        assert not sink.has(results[3].job, "run")
        assert len(sink.read(results[3].job, "new").regions) == 5
