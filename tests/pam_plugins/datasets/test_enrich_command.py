"""`pam enrich` on one process: what it does, and what it says where something is wrong."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pam_core.types import Picture
from pam_plugins import pipeline
from pam_plugins.datasets import parquet_sink
from pam_plugins.datasets.jsonl import read_results
from tests.factories import FakePlugin, shapes, write_picture, write_pictures
from tests.pam_plugins.cli.conftest import Ended, run_main

Enrich = Callable[..., Ended]


@pytest.fixture
def enrich(fake: FakePlugin) -> Enrich:
    """`pam enrich ... --model fake`."""
    return lambda *arguments: run_main("enrich", *arguments, "--model", "fake")


def test_a_folder_into_parquet(enrich: Enrich, tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "in", 5)
    result = enrich(f"folder:{tmp_path / 'in'}", f"parquet:{tmp_path / 'out'}", "--lang", "en,zh")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert "5 pictures, 15 regions; " in result.stderr and "pictures a second" in result.stderr
    table = pq.read_table(tmp_path / "out")
    assert table["id"].to_pylist() == [str(path) for path in paths]
    assert "白色" in table["regions"].to_pylist()[0][0]["region"].encode().decode("unicode_escape")


def test_a_coco_file_with_some_failures_that_are_tried_again(
    enrich: Enrich, fake: FakePlugin, tmp_path: Path
) -> None:
    picture, known = shapes(80, 60, 2)
    write_picture(tmp_path / "a.png", picture)
    write_picture(tmp_path / "c.png", picture[:, ::-1])
    x1, y1, x2, y2 = known[0].box
    images = [{"id": key, "file_name": f"{name}.png"} for key, name in ((1, "a"), (2, "b"), (3, "c"))]
    boxes = [
        {"image_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]},
        {"image_id": 2, "bbox": [1, 1, 5, 5]},
        {"image_id": 3, "bbox": [70, 50, 50, 50]},
    ]
    (tmp_path / "i.json").write_text(json.dumps({"images": images, "annotations": boxes}))
    arguments = (f"coco:{tmp_path / 'i.json'}", f"parquet:{tmp_path / 'out'}")
    result = enrich(*arguments)
    assert result.exit_code == 1
    assert "1 pictures, 1 regions; 2 failed; " in result.stderr
    assert "b.png: no such file" in result.stderr
    assert "outside the picture" in result.stderr
    assert pq.read_table(tmp_path / "out")["regions"].to_pylist()[0][0]["label"] == known[0].colour

    write_picture(tmp_path / "b.png", picture[::-1])
    result = enrich(*arguments)
    assert result.exit_code == 1
    assert "2 pictures, 2 regions; 1 taken over from an earlier run; 1 failed; " in result.stderr
    table = pq.read_table(tmp_path / "out")
    assert sorted(table["id"].to_pylist()) == ["1", "2", "3"]
    assert fake.model.describes == 2


def test_the_rows_of_one_run_ask_the_same_of_another(enrich: Enrich, fake: FakePlugin, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 3)
    enrich(f"folder:{tmp_path / 'in'}", f"parquet:{tmp_path / 'one'}")
    result = enrich(f"parquet:{tmp_path / 'one'}", f"parquet:{tmp_path / 'two'}")
    assert result.exit_code == 0, result.stderr
    assert pq.read_table(tmp_path / "one").equals(pq.read_table(tmp_path / "two"))


def test_options_are_passed_on(enrich: Enrich, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 1)
    enrich(f"folder:{tmp_path / 'in'}", f"parquet:{tmp_path / 'out'}", "--task", "label", "--postprocess", "shout")
    (regions,) = pq.read_table(tmp_path / "out")["regions"].to_pylist()
    assert {region["label"] for region in regions} == {"WHITE", "RED", "GREEN"}
    assert all(set(json.loads(region["region"])["texts"]) == {"label"} for region in regions)


def test_ctrl_c(enrich: Enrich, fake: FakePlugin, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 5)
    embed = fake.model.embed

    def at_the_third(pictures: Sequence[Picture]) -> Any:
        if fake.model.embeds == 2:
            raise KeyboardInterrupt
        return embed(pictures)

    fake.model.embed = at_the_third  # type: ignore[method-assign]
    arguments = (f"folder:{tmp_path / 'in'}", f"parquet:{tmp_path / 'out'}")
    result = enrich(*arguments)
    assert result.exit_code == 130
    assert "stopped: 2 of 5 pictures are finished" in result.stderr
    assert "the same command goes on from there" in result.stderr
    fake.model.embed = embed  # type: ignore[method-assign]
    result = enrich(*arguments)
    assert result.exit_code == 0
    assert "5 pictures, 15 regions; 2 taken over from an earlier run" in result.stderr
    assert len(pq.read_table(tmp_path / "out")) == 5


def test_a_full_disk(enrich: Enrich, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "in", 5)
    monkeypatch.setattr(pipeline, "WRITE_SECONDS", 0.0)
    fsync, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 4:  # a file and a folder for each write
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(parquet_sink.os, "fsync", full)
    arguments = (f"folder:{tmp_path / 'in'}", f"parquet:{tmp_path / 'out'}")
    result = enrich(*arguments)
    assert result.exit_code == 1
    assert "No space left" in result.stderr
    monkeypatch.undo()
    assert len(pq.read_table(tmp_path / "out")) == 2
    result = enrich(*arguments)
    assert "5 pictures, 15 regions; 2 taken over from an earlier run" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("photos", "parquet:out"), 2, "Got 'photos' for SOURCE; wanted KIND:ADDRESS, e.g. folder:photos"),
        (("folder:photos", "out"), 2, "Got 'out' for SINK; wanted KIND:ADDRESS, e.g. parquet:out"),
        (("folder:", "parquet:out"), 2, "Got 'folder:' for SOURCE"),
        (
            ("zip:photos", "parquet:out"),
            2,
            "No kind of source is called 'zip'; there is folder, coco, parquet, prompts",
        ),
        (("folder:photos", "folder:out"), 2, "No kind of sink is called 'folder'; there is jsonl, parquet, coco"),
        (("parquet:out", "parquet:out"), 2, "wanted different places"),
        (("folder:none", "parquet:out"), 1, "none: No such file or directory; wanted a folder of pictures"),
        (("coco:none.json", "parquet:out"), 1, "none.json: cannot be read"),
        (("parquet:none", "parquet:out"), 1, "none cannot be read"),
        (("folder:photos", "parquet:photos"), 1, "photos holds 0000.png"),
        (("folder:photos", "parquet:out", "--proposer", "none"), 2, "No proposer is called 'none'"),
        (("folder:photos", "parquet:out", "--postprocess", "none"), 2, "No post-processor is called 'none'"),
        (("folder:photos", "parquet:out", "--task", "none"), 2, "cannot do the task 'none'"),
        (("folder:photos", "parquet:out", "--lang", "xx"), 2, "xx"),
        (("folder:photos", "parquet:out", "--device", "none"), 2, "Got the device 'none'"),
        (("folder:photos", "parquet:out", "--ray-address", "auto"), 2, "Got --ray-address without --actors"),
        (("folder:photos", "parquet:out", "--actors", "-1"), 2, "--actors"),
    ],
)
def test_misuse_is_told_in_a_sentence(
    enrich: Enrich,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(Path("photos"), 1)
    result = enrich(*arguments)
    assert result.exit_code == code, result.stderr
    assert said in " ".join(result.stderr.split())
    assert not list(tmp_path.glob("out/part*"))


def test_sources_and_sinks_are_listed() -> None:
    listed = run_main("plugins").stdout
    assert "sources: folder " in listed
    assert "sinks: jsonl " in listed


def test_prompts_into_json_lines_and_on_into_other_sinks(enrich: Enrich, fake: FakePlugin, tmp_path: Path) -> None:
    picture, known = shapes(80, 60, 2)
    write_picture(tmp_path / "a.png", picture)
    lines = [{"image": "a.png", "points": [shape.centre]} for shape in known]
    (tmp_path / "clicks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for _ in range(2):
        result = enrich(f"prompts:{tmp_path / 'clicks.jsonl'}", f"jsonl:{tmp_path / 'out.jsonl'}")
        assert result.exit_code == 0, result.stderr
        (perception,) = read_results(tmp_path / "out.jsonl")
    assert [region.label for region in perception.regions] == [shape.colour for shape in known]
    assert "1 pictures, 2 regions; 1 taken over from an earlier run" in result.stderr
    for sink in (f"coco:{tmp_path / 'out.json'}", f"overlay:{tmp_path / 'o'}", f"html:{tmp_path / 'h'}"):
        result = enrich(f"prompts:{tmp_path / 'clicks.jsonl'}", sink)
        assert result.exit_code == 0, result.stderr
    assert len(json.loads((tmp_path / "out.json").read_text())["annotations"]) == 2
    assert (tmp_path / "o" / "a.overlay.png").exists() and (tmp_path / "h" / "index.html").exists()
