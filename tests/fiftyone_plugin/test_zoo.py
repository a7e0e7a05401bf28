"""The model of the zoo: listed, loaded and applied as FiftyOne does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.factories import FakePlugin, shapes
from tests.fiftyone_plugin.conftest import ROOT, MakeDataset, relative

ZOO = ROOT / "fiftyone_plugin" / "zoo"
SOURCE = "https://models.invalid/pam-plugins.zip"


@pytest.fixture
def zoo() -> Any:
    """The source as FiftyOne has it once it is registered: a copy that knows where it came from."""
    import fiftyone as fo

    folder = Path(fo.config.model_zoo_dir) / "pam-plugins"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ZOO, folder, ignore=shutil.ignore_patterns("__pycache__"))
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "url": SOURCE}))
    yield folder
    shutil.rmtree(folder)


def test_the_source_lists_its_models_and_loads_the_one_that_is_ready(zoo: Path) -> None:
    import fiftyone.zoo as foz

    from pam_core.errors import NotFoundError

    assert foz.list_zoo_model_sources() == [SOURCE]
    assert foz.list_zoo_models(source=SOURCE) == ["pam", "pam-lite"]
    model = foz.load_zoo_model("pam-lite")
    assert model.media_type == "image" and (zoo / "pam-lite.txt").read_text().startswith("lite: ")
    assert foz.load_zoo_model("pam-lite", languages=["zh"]).config.languages == ("zh",)
    with pytest.raises(NotFoundError, match="pam download"):
        foz.load_zoo_model("pam")


def test_a_registered_source_is_taken_as_fiftyone_takes_archives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Registered by address; only the download is replaced by a copy, as these tests reach no network."""
    import fiftyone as fo
    import fiftyone.zoo as foz
    import fiftyone.zoo.models as fozm

    monkeypatch.setattr(fo.config, "model_zoo_dir", str(tmp_path / "zoo"))
    monkeypatch.setattr(
        fozm, "_download_archive", lambda url, folder: shutil.copytree(ZOO, folder, dirs_exist_ok=True)
    )
    foz.register_zoo_model_source(SOURCE)
    assert foz.list_zoo_models(source=SOURCE) == ["pam", "pam-lite"]


def test_it_is_applied_in_batches_to_the_labels_of_a_field(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    from fiftyone_plugin.zoo_model import PamZooModel

    batches: list[int] = []

    class Counted(PamZooModel):
        def predict_all(self, args: Any, samples: Any = None) -> Any:
            batches.append(len(args))
            return super().predict_all(args, samples)

    dataset = make_dataset(20)
    sample = dataset.last()
    sample["boxes"] = None
    sample.save()
    model = Counted(fake.model.info, languages=["en", "zh"], tasks=["label", "brief"])
    dataset.apply_model(model, label_field="regions", batch_size=8, prompt_field="boxes", skip_failures=False)
    assert batches == [8, 8, 4]
    assert fake.model.embeds == 19, "without a label there is nothing to look at"
    _, known = shapes(120, 90, 3)
    for found in dataset.values("regions")[:-1]:
        assert [label.label for label in found.detections] == ["red", "green", "blue"]
        for label, shape in zip(found.detections, known, strict=True):
            x1, y1, x2, y2 = shape.box
            np.testing.assert_array_equal(label.get_mask(), shape.mask[y1:y2, x1:x2])
            assert label["caption"] and label["caption_zh"] and label["model"] == "fake 1" and label["prompt"]
    assert dataset.last()["regions"] is None


def test_without_a_field_everything_is_found_in_images_and_frames(
    fake: FakePlugin, make_dataset: MakeDataset
) -> None:
    import fiftyone as fo

    from fiftyone_plugin.zoo_model import PamZooModel

    model = PamZooModel(fake.model.info, tasks=["label"])
    dataset = make_dataset(2, boxes=False)
    dataset.apply_model(model, label_field="regions", skip_failures=False)
    assert {"red", "green", "blue"} <= set(dataset.distinct("regions.detections.label"))
    picture, known = shapes(120, 90, 3)
    assert model.predict(picture).detections
    box = fo.Detection(label="x", bounding_box=relative(known[0].box, 120, 90))
    frame = fo.Frame(boxes=fo.Detections(detections=[box]))
    model.needs_fields = {"prompt_field": "frames.boxes"}
    assert [label.label for label in model.predict(picture, sample=frame).detections] == ["red"]


def test_what_fails_costs_its_batch_only_and_is_told_where_it_is_asked_for(
    fake: FakePlugin, make_dataset: MakeDataset
) -> None:
    import fiftyone as fo

    from fiftyone_plugin.zoo_model import PamZooModel

    dataset = make_dataset(4)
    sample = dataset.first()
    sample["boxes"] = fo.Detections(detections=[fo.Detection(label="x", bounding_box=[2, 2, 0.5, 0.5])])
    sample.save()
    model = PamZooModel(fake.model.info)
    dataset.apply_model(model, label_field="regions", batch_size=2, prompt_field="boxes")
    assert [found is not None for found in dataset.values("regions")] == [False, False, True, True]
    with pytest.raises(ValueError, match="area"):
        dataset.apply_model(model, label_field="other", prompt_field="boxes", skip_failures=False)
    with pytest.raises(ValueError, match="wanted prompt_field"):
        dataset.apply_model(model, label_field="other", prompts="boxes")


def test_settings_that_the_model_cannot_do_are_refused(fake: FakePlugin) -> None:
    from fiftyone_plugin.zoo import load_model
    from fiftyone_plugin.zoo_model import PamZooModel
    from pam_core.errors import NotFoundError, UnsupportedError

    with pytest.raises(UnsupportedError, match="explanation"):
        PamZooModel(fake.model.info, languages=["zh"], tasks=["explanation"])
    with pytest.raises(NotFoundError, match="pam-lite, pam"):
        load_model("sam")


def test_the_app_is_offered_tasks_and_languages(zoo: Path) -> None:
    import fiftyone.zoo as foz

    form = foz.get_zoo_model("pam-lite").resolve_input(None).to_json()
    assert {"tasks", "languages"} <= set(form["type"]["properties"])
