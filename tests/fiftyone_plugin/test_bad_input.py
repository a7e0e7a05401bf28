"""What cannot be done is said in a sentence, in the form and to the caller, and nothing is changed or lost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.mongod import Mongod
from tests.factories import FakePlugin, write_pictures
from tests.fiftyone_plugin.conftest import URI, MakeDataset
from tests.fiftyone_plugin.test_perceive import COLOURS, caption, labels, perceive


def form(name: str, view: Any, **params: Any) -> dict[str, Any]:
    """The properties of an operator's form as the App gets them."""
    from fiftyone.operators import executor
    from fiftyone.operators.registry import OperatorRegistry

    request = {
        "dataset_name": view._dataset.name,
        "view": view.view()._serialize(),
        "params": {"model": "fake", **params},
    }
    resolved = asyncio.run(executor.resolve_type(OperatorRegistry(), f"{URI}/{name}", request))
    return resolved.to_json()["type"]["properties"]


def misuse(name: str, view: Any, **params: Any) -> str:
    """The sentence that the form shows instead of letting the operator run."""
    shown = form(name, view, **params)
    assert "misuse" in shown, sorted(shown)
    assert shown["misuse"]["invalid"]
    return str(shown["misuse"]["view"]["label"])


def test_a_missing_file_is_recorded_and_the_rest_goes_on(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    dataset = make_dataset(3)
    Path(dataset.first().filepath).unlink()
    counts = perceive(dataset, prompt_field="boxes")
    assert (counts["perceived"], counts["failed"]) == (3, 1)
    assert labels(dataset) == [None, COLOURS, COLOURS]
    failed = dataset.exists("regions_error")
    assert len(failed) == 1
    assert dataset.first()["regions_error"].startswith(dataset.first().filepath)
    assert dataset.first()["regions_run"] is None


def test_what_failed_is_tried_again(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    dataset = make_dataset(2)
    path = Path(dataset.first().filepath)
    content = path.read_bytes()
    path.write_bytes(content[:40])
    perceive(dataset, prompt_field="boxes")
    path.write_bytes(content)
    counts = perceive(dataset, prompt_field="boxes")
    assert (counts["perceived"], counts["skipped"]) == (1, 1)
    dataset.reload()
    assert dataset.values("regions_error") == [None, None]
    assert labels(dataset) == [COLOURS] * 2


def test_a_grouped_dataset_wants_a_slice(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    import fiftyone as fo

    from fiftyone_plugin.checks import FiftyOneError

    plain = make_dataset(2)
    grouped = fo.Dataset()
    try:
        grouped.add_group_field("group", default="left")
        group = fo.Group()
        for name, sample in zip(("left", "right"), plain, strict=True):
            grouped.add_sample(
                fo.Sample(filepath=sample.filepath, group=group.element(name), boxes=sample["boxes"].copy())
            )
        with pytest.raises(FiftyOneError, match=r"without a slice.*left.*right.*select_group_slices"):
            perceive(grouped, prompt_field="boxes")
        assert "1 samples" in form("perceive_regions", grouped)["estimate"]["view"]["label"]  # the App has a slice
        assert perceive(grouped.select_group_slices("right"), prompt_field="boxes")["perceived"] == 1
        assert grouped.select_group_slices("right").first()["regions"].detections[0].label == "red"
        assert grouped.select_group_slices("left").first()["regions"] is None
    finally:
        grouped.delete()


def test_videos_are_not_images(fake: FakePlugin, tmp_path: Path) -> None:
    import fiftyone as fo

    videos = fo.Dataset()
    try:
        videos.add_sample(fo.Sample(filepath=str(tmp_path / "a.mp4")))
        assert "Got video samples; wanted image samples" in misuse("perceive_regions", videos)
        assert videos.get_field("regions") is None
    finally:
        videos.delete()


def test_fields_of_the_wrong_type(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    import fiftyone as fo

    dataset = make_dataset(1)
    dataset.set_values("scene", [fo.Classification(label="office")])
    assert "holds Classification; wanted Detections" in misuse("perceive_regions", dataset, field="scene")
    assert "holds Classification; wanted one of Detections" in misuse(
        "perceive_regions", dataset, prompt_field="scene"
    )
    assert "holds Detections; wanted Polylines" in misuse(
        "perceive_regions", dataset, field="boxes", geometry="polyline"
    )
    assert "There is no field 'nothing'; the fields that can be prompts are: boxes" in misuse(
        "caption_regions", dataset, field="nothing"
    )
    assert "Got the field name 'a b'" in misuse("perceive_regions", dataset, field="a b")
    assert "Got the field name 'filepath'" in misuse("perceive_regions", dataset, field="filepath")
    assert dataset.first()["scene"].label == "office"


def test_a_mask_field_that_is_there_already_is_not_touched(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    import fiftyone as fo
    import numpy as np

    dataset = make_dataset(2)
    dataset.set_values("masks", [fo.Segmentation(mask=np.ones((4, 4), np.uint8)), None])
    assert "holds Segmentation; wanted Detections" in misuse("perceive_regions", dataset, field="masks")
    perceive(dataset[:1], prompt_field="boxes")
    shown = form("perceive_regions", dataset, prompt_field="boxes")
    assert "1 samples have results in 'regions' already" in shown["skipped"]["view"]["label"]


def test_a_read_only_field(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    import fiftyone as fo

    dataset = make_dataset(1)
    dataset.add_sample_field("regions", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections, read_only=True)
    assert "'regions' is read-only" in misuse("perceive_regions", dataset)


def test_a_read_only_dataset(host: dict[str, str], tmp_path: Path) -> None:
    """A user of the database who may look at samples and not write them; in a process of its own."""
    import pymongo

    picture = write_pictures(tmp_path, 1)[0]
    make = f"import fiftyone as fo; fo.Dataset('d', persistent=True).add_sample(fo.Sample(filepath={str(picture)!r}))"
    enrich = (
        "import fiftyone as fo\n"
        "from fiftyone_plugin.checks import FiftyOneError\n"
        "from fiftyone_plugin.images import ImageRequest, ImageRun\n"
        "dataset = fo.load_dataset('d')\n"
        "try:\n"
        "    list(ImageRun(dataset, ImageRequest(model='lite')).steps())\n"
        "except FiftyOneError as error:\n"
        "    print(error, dataset.get_field('regions'))\n"
    )
    looks = {
        "resource": {"db": "pam", "collection": ""},
        "actions": ["find", "createIndex", "collStats", "listIndexes"],
    }
    opens = {"resource": {"db": "pam", "collection": "datasets"}, "actions": ["find", "update"]}
    with Mongod(tmp_path, "--auth") as uri:
        address = uri.removeprefix("mongodb://")
        pymongo.MongoClient(uri).admin.command("createUser", "boss", pwd="x", roles=["root"])
        admin = pymongo.MongoClient(f"mongodb://boss:x@{address}").admin
        admin.command("createRole", "looker", privileges=[looks, opens], roles=["readAnyDatabase"])
        admin.command("createUser", "guest", pwd="x", roles=["looker"])

        def run(user: str, code: str) -> str:
            settings = {
                **host,
                "FIFTYONE_DATABASE_NAME": "pam",
                "FIFTYONE_DATABASE_URI": f"mongodb://{user}:x@{address}",
            }
            done = subprocess.run(
                [sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        run("boss", make)
        output = run("guest", enrich)
    assert output.startswith("The dataset 'd' is read-only for this user of the database")
    assert output.rstrip().endswith("None")


def test_a_dataset_without_labels_to_caption(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    dataset = make_dataset(1, boxes=False)
    assert "has no field of Detections, Keypoints or Polylines" in misuse("caption_regions", dataset)


def test_models_and_languages_that_are_not_there(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    dataset = make_dataset(1)
    assert "No model is called 'gone'" in misuse("perceive_regions", dataset, model="gone")
    assert "cannot answer 'explanation' in zh" in misuse(
        "perceive_regions", dataset, tasks=["explanation"], languages=["zh"]
    )
    assert "wanted their names" in misuse("perceive_regions", dataset, tasks=[3])


def test_an_impossible_box_fails_its_sample_only(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    dataset = make_dataset(2)
    sample = dataset.first()
    sample["boxes"].detections[0].bounding_box = [0.5, 0.5, 0.0, 0.1]
    sample.save()
    counts = perceive(dataset, prompt_field="boxes")
    assert (counts["failed"], counts["perceived"]) == (1, 2)
    dataset.reload()
    assert "has no area" in dataset.first()["regions_error"]


def test_labels_deleted_meanwhile_are_left_out(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    dataset = make_dataset(1)
    gone = dataset.first()["boxes"].detections[1].id

    def delete(*_: object) -> None:
        dataset.delete_labels(ids=[gone], fields="boxes")

    fake.model.describe, describe = (lambda *a, **k: (delete(), describe(*a, **k))[1]), fake.model.describe
    counts = caption(dataset, "boxes")
    assert counts["failed"] == 0
    dataset.reload()
    assert [label["perceived_label"] for label in dataset.first()["boxes"].detections] == ["red", "blue"]


def test_a_sample_deleted_meanwhile_is_left_out(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    dataset = make_dataset(3)
    last = dataset.last().id
    describe = fake.model.describe
    fake.model.describe = lambda *a, **k: (dataset.delete_samples([last]), describe(*a, **k))[1]
    perceive(dataset, prompt_field="boxes")
    assert labels(dataset) == [COLOURS] * 2


def test_a_model_that_breaks_down_loses_nothing(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    dataset = make_dataset(3)
    describe = fake.model.describe
    left = iter([describe, describe])

    def break_down(*arguments: Any, **named: Any) -> Any:
        return next(left, _broken)(*arguments, **named)

    fake.model.describe = break_down
    with pytest.raises(RuntimeError, match="out of memory"):
        perceive(dataset, prompt_field="boxes")
    assert labels(dataset) == [COLOURS, COLOURS, None]
    fake.model.describe = describe
    assert perceive(dataset, prompt_field="boxes")["perceived"] == 1
    assert labels(dataset) == [COLOURS] * 3


def _broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("out of memory")
