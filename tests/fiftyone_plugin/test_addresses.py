"""FiftyOne datasets as sources and sinks of `pam enrich`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pam_core.errors import DatasetError
from pam_plugins.cli import app
from pam_plugins.datasets.contracts import Job
from pam_plugins.options import Options
from pam_plugins.pipeline import run
from tests.factories import FakePlugin, write_pictures
from tests.fiftyone_plugin.conftest import MakeDataset
from tests.fiftyone_plugin.test_perceive import COLOURS, labels


def pam_enrich(source: str, sink: str) -> Any:
    return CliRunner().invoke(app, ["enrich", source, sink, "--model", "fake"])


def error_of(source: str, sink: str) -> str:
    """The error that ends the command."""
    done = pam_enrich(source, sink)
    assert done.exit_code == 1 and isinstance(done.exception, DatasetError), done.output
    return str(done.exception)


def test_the_command_goes_from_dataset_to_dataset_and_to_parquet(
    fake: FakePlugin, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    from pyarrow import parquet

    dataset = make_dataset(4)
    dataset.save_view("two", dataset[1:3])
    done = pam_enrich(f"fiftyone:{dataset.name}@two/boxes", f"fiftyone:{dataset.name}/found")
    assert done.exit_code == 0, done.output
    assert labels(dataset, "found") == [None, COLOURS, COLOURS, None]
    embeds = fake.model.embeds
    done = pam_enrich(f"fiftyone:{dataset.name}/boxes", f"fiftyone:{dataset.name}/found")
    assert done.exit_code == 0, done.output
    assert labels(dataset, "found") == [COLOURS] * 4
    assert fake.model.embeds <= embeds + 2
    done = pam_enrich(f"fiftyone:{dataset.name}/boxes", f"parquet:{tmp_path / 'out'}")
    assert done.exit_code == 0, done.output
    table = parquet.read_table(tmp_path / "out")
    assert table["id"].to_pylist() == dataset.values("id")
    assert [[region["label"] for region in row] for row in table["regions"].to_pylist()] == [COLOURS] * 4


def test_pictures_the_dataset_does_not_have_are_added_once(
    fake: FakePlugin, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    from fiftyone_plugin.addresses import open_sink

    dataset = make_dataset(1)
    pictures = write_pictures(tmp_path / "pictures", 2)
    jobs = [Job(path, id=f"row {number}") for number, path in enumerate(pictures)]

    for expected in (2, 0):
        before = fake.model.embeds
        sink = open_sink(f"{dataset.name}/found")
        with closing(sink):
            results = list(run(jobs, [sink], fake.model, Options()))
        assert [result.resumed for result in results] == [not expected] * 2
        assert all(result.perception.regions for result in results)
        assert fake.model.embeds - before == expected
        dataset.reload()
        assert dataset.values("found_source") == [None, "row 0", "row 1"]
        assert dataset.exists("found_run").count() == 2


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("fiftyone:no such", "There is no FiftyOne dataset 'no such'"),
        ("fiftyone:{name}@gone", "has no saved view 'gone'"),
        ("fiftyone:{name}/scene", "There is no field 'scene'"),
    ],
)
def test_what_is_not_there_is_said(
    fake: FakePlugin, make_dataset: MakeDataset, tmp_path: Path, address: str, message: str
) -> None:
    dataset = make_dataset(1)
    assert message in error_of(address.format(name=dataset.name), f"parquet:{tmp_path / 'out'}")


def test_labels_that_others_made_are_not_replaced(
    fake: FakePlugin, make_dataset: MakeDataset, tmp_path: Path
) -> None:
    dataset = make_dataset(1)
    error = error_of(f"fiftyone:{dataset.name}", f"fiftyone:{dataset.name}/boxes")
    assert "holds labels that were not made by pam" in error
    assert labels(dataset, "boxes") == [["thing"] * 3]


def test_which_model_made_the_field_is_on_record(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    dataset = make_dataset(1)
    assert pam_enrich(f"fiftyone:{dataset.name}/boxes", f"fiftyone:{dataset.name}/found").exit_code == 0
    dataset.reload()
    assert dataset.get_run_info("pam_found").config.model == "fake 1"
