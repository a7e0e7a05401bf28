"""Accepting, editing and rejecting labels on a real database, and the file that comes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import numpy as np
import pytest

from pam_core.types import Feedback, Region, Verdict
from pam_plugins.hookspecs import hookimpl
from tests.factories import FakePlugin, shapes
from tests.fiftyone_plugin.conftest import URI, MakeDataset
from tests.fiftyone_plugin.test_perceive import perceive as run_perceive


class Listener:
    """A plugin that keeps what is announced."""

    def __init__(self) -> None:
        self.announced: list[Feedback] = []

    @hookimpl
    def pam_feedback(self, feedback: Feedback) -> None:
        self.announced.append(feedback)


@pytest.fixture
def listener() -> Iterator[Listener]:
    from pam_plugins.plugins import get_plugins

    plugin = Listener()
    with get_plugins().registered(plugin, "listener"):
        yield plugin


@pytest.fixture
def perceived(fake: FakePlugin, make_dataset: MakeDataset) -> Any:
    """Two samples of three regions each, with words in English and Chinese."""
    return perceive(make_dataset(2))


def perceive(dataset: Any, **settings: Any) -> Any:
    run_perceive(dataset, prompt_field="boxes", languages=["en", "zh"], tasks=["label", "brief"], **settings)
    dataset.reload()
    return dataset


def labels(dataset: Any, field: str = "regions") -> list[Any]:
    """The labels of the first sample, as they are in the database."""
    sample = dataset.first()
    sample.reload()
    return list(sample[field][sample[field]._LABEL_LIST_FIELD])


def give_verdict(
    dataset: Any, index: int, verdict: Verdict, texts: dict[str, str] | None = None, field: str = "regions"
) -> Any:
    from fiftyone_plugin.feedback import review

    return review(dataset, field, dataset.first().id, labels(dataset, field)[index].id, verdict, texts)


def test_a_verdict_is_a_tag_and_takes_the_place_of_another(perceived: Any) -> None:
    sample = perceived.first()
    sample["regions"].detections[0].tags = ["mine"]
    sample.save()
    before = labels(perceived)
    for verdict in (Verdict.ACCEPTED, Verdict.REJECTED, Verdict.ACCEPTED, Verdict.ACCEPTED):
        give_verdict(perceived, 0, verdict)
        assert labels(perceived)[0].tags == ["mine", verdict.value]
    after = labels(perceived)
    assert [label.tags for label in after[1:]] == [[], []]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old.mask, new.mask)
        assert (old.id, old.label, old.bounding_box, old["caption"]) == (
            new.id, new.label, new.bounding_box, new["caption"],
        )  # fmt: skip
    assert perceived.count_label_tags() == {"mine": 1, "accepted": 1}


def test_a_sample_in_memory_sees_the_verdict_and_does_not_undo_it(perceived: Any) -> None:
    sample = perceived.first()
    give_verdict(perceived, 1, Verdict.ACCEPTED)
    assert sample["regions"].detections[1].tags == ["accepted"]
    sample["note"] = "saved later"
    sample.save()
    assert labels(perceived)[1].tags == ["accepted"]


def test_an_edit_keeps_the_words_of_the_model_the_first_time_only(perceived: Any) -> None:
    own = labels(perceived)[0]
    give_verdict(perceived, 0, Verdict.EDITED, {"label": "crimson $square", "caption": "A crimson square."})
    give_verdict(perceived, 0, Verdict.EDITED, {"label": "scarlet", "caption_zh": "一个红色方块。"})
    found = labels(perceived)[0]
    assert (found.label, found["caption"], found["caption_zh"]) == ("scarlet", "A crimson square.", "一个红色方块。")
    assert (found["original_label"], found["original_caption"], found["original_caption_zh"]) == (
        own.label, own["caption"], own["caption_zh"],
    )  # fmt: skip
    assert found.get_attribute_value("original_label_zh", None) is None
    assert found.tags == ["edited"]
    assert perceived.count_values("regions.detections.original_label")[own.label] == 1


def test_a_text_that_did_not_change_is_not_an_edit_of_it(perceived: Any) -> None:
    own = labels(perceived)[0]
    feedback = give_verdict(perceived, 0, Verdict.EDITED, {"label": own.label, "caption": "Another."})
    assert labels(perceived)[0].get_attribute_value("original_label", None) is None
    assert feedback.correction.text("brief") == "Another."


def test_the_plugins_hear_of_it_with_the_words_before_and_after(perceived: Any, listener: Listener) -> None:
    own = labels(perceived)[1]
    give_verdict(perceived, 1, Verdict.ACCEPTED)
    give_verdict(perceived, 1, Verdict.EDITED, {"label": "lime", "caption": ""})
    give_verdict(perceived, 1, Verdict.REJECTED)
    accepted, edited, rejected = listener.announced
    assert [feedback.verdict for feedback in listener.announced] == list(Verdict)
    _, known = shapes(120, 90, 3)
    np.testing.assert_array_equal(accepted.region.mask.array, known[1].mask)
    assert accepted.region.text("label") == own.label == "green"
    assert accepted.region.text("label", "zh") == own["label_zh"]
    assert accepted.region.text("brief") == own["caption"]
    assert accepted.region.model.name == "fake" and accepted.region.model.revision == "1"
    assert accepted.region.prompt is not None and accepted.region.prompt.box is not None
    assert accepted.correction is None and accepted.source == "fiftyone"
    assert accepted.image == perceived.first().filepath
    assert edited.region == accepted.region
    assert edited.correction is not None
    assert edited.correction.text("label") == "lime" and edited.correction.text("brief") == ""
    assert rejected.region == accepted.region and rejected.correction == edited.correction


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        ({"label": "  "}, "Got an empty label"),
        ({"caption": "x" * 10_001}, "10001 characters"),
        ({"mask": "x"}, "Got a text for 'mask'"),
        ({"label": 3}, "Got 3 for 'label'"),
    ],
)
def test_a_text_that_cannot_be_used_changes_nothing(perceived: Any, texts: dict[str, Any], wanted: str) -> None:
    from fiftyone_plugin.checks import FiftyOneError

    with pytest.raises(FiftyOneError, match=wanted):
        give_verdict(perceived, 0, Verdict.EDITED, texts)
    assert labels(perceived)[0].tags == []


def test_texts_are_freed_of_what_a_database_does_not_take(perceived: Any) -> None:
    give_verdict(perceived, 0, Verdict.EDITED, {"label": " a\ud800\0b "})
    assert labels(perceived)[0].label == "ab"


def test_a_label_or_sample_that_is_gone_is_said(perceived: Any, listener: Listener) -> None:
    from fiftyone_plugin.checks import FiftyOneError
    from fiftyone_plugin.feedback import review

    sample = perceived.first()
    gone = sample["regions"].detections.pop(0)
    sample.save()
    for sample_id, label_id in ((sample.id, gone.id), ("0" * 24, gone.id), (sample.id, "nonsense")):
        with pytest.raises(FiftyOneError, match="no longer there"):
            review(perceived, "regions", sample_id, label_id, Verdict.ACCEPTED)
    assert listener.announced == []
    assert perceived.count_label_tags() == {}


@pytest.mark.parametrize("field", ["nothing", "filepath", "boxes_kp"])
def test_a_field_that_cannot_be_judged_is_said(perceived: Any, field: str) -> None:
    import fiftyone as fo

    from fiftyone_plugin.checks import FiftyOneError
    from fiftyone_plugin.feedback import review

    perceived.add_sample_field("boxes_kp", fo.EmbeddedDocumentField, embedded_doc_type=fo.Keypoints)
    with pytest.raises(FiftyOneError, match="wanted one of Detections or Polylines"):
        review(perceived, field, perceived.first().id, labels(perceived)[0].id, Verdict.ACCEPTED)


def test_a_read_only_field_is_said(perceived: Any) -> None:
    from fiftyone_plugin.checks import FiftyOneError

    field = perceived.get_field("regions")
    field.read_only = True
    field.save()
    with pytest.raises(FiftyOneError, match="read-only"):
        give_verdict(perceived, 0, Verdict.ACCEPTED)


def test_a_label_without_a_mask_is_tagged_but_not_announced(perceived: Any, listener: Listener) -> None:
    assert give_verdict(perceived, 0, Verdict.ACCEPTED, field="boxes") is None
    assert labels(perceived, "boxes")[0].tags == ["accepted"]
    assert listener.announced == []


def test_a_picture_that_is_gone_does_not_keep_a_verdict_from_being_written(
    perceived: Any, listener: Listener
) -> None:
    Path(perceived.first().filepath).unlink()
    assert give_verdict(perceived, 0, Verdict.ACCEPTED) is None
    assert labels(perceived)[0].tags == ["accepted"] and listener.announced == []


def test_outlines_can_be_judged_too(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    dataset = perceive(make_dataset(1), field="outlines", geometry="polyline")
    feedback = give_verdict(dataset, 2, Verdict.EDITED, {"label": "sky"}, field="outlines")
    assert feedback.region.label == "blue" and feedback.correction.label == "sky"
    assert labels(dataset, "outlines")[2].tags == ["edited"]


def test_judgements_at_the_same_time_do_not_undo_each_other(perceived: Any) -> None:
    """Each rewrites only its own label, though the labels of a sample are one document."""
    from fiftyone_plugin.feedback import review

    sample, found = perceived.first().id, [label.id for label in labels(perceived)]
    start = Barrier(len(found))

    def work(label_id: str, verdict: Verdict) -> None:
        start.wait()
        for turn in range(20):
            review(perceived, "regions", sample, label_id, verdict, {"caption": f"{verdict.value} {turn}"})

    threads = [Thread(target=work, args=pair) for pair in zip(found, Verdict, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(label.tags, label["caption"]) for label in labels(perceived)] == [
        ([verdict.value], f"{verdict.value} 19") for verdict in Verdict
    ]


def export(view: Any, path: Path | str, **params: Any) -> dict[str, Any]:
    import fiftyone.operators as foo

    context = {"view": view.view(), "params": {"field": "regions", "path": str(path), **params}}
    return dict(foo.execute_operator(f"{URI}/export_feedback", context).result)


def read(path: Path) -> list[Feedback]:
    return [Feedback.from_json(json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def test_exported_feedback_comes_back_whole(perceived: Any, listener: Listener, tmp_path: Path) -> None:
    give_verdict(perceived, 0, Verdict.ACCEPTED)
    give_verdict(perceived, 1, Verdict.EDITED, {"label": "lime", "caption_zh": "青柠色的圆。"})
    give_verdict(perceived, 2, Verdict.REJECTED)
    path = tmp_path / "feedback.jsonl"
    counts = export(perceived, path)
    assert counts == {
        "path": str(path), "field": "regions", "accepted": 1, "edited": 1, "rejected": 1, "left_out": 0,
    }  # fmt: skip
    assert read(path) == listener.announced
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [line["schema"] for line in lines] == ["pam.feedback/1"] * 3
    assert Region.from_json(lines[1]["correction"]).text("brief", "zh") == "青柠色的圆。"
    assert sorted(tmp_path.glob(".*")) == []


def test_tags_set_by_hand_count_the_same(perceived: Any, tmp_path: Path) -> None:
    from fiftyone import ViewField as F

    perceived.filter_labels("regions", F("label") == "red").tag_labels("rejected", "regions")
    perceived.filter_labels("regions", F("label") == "blue").tag_labels(["accepted", "edited"], "regions")
    path = tmp_path / "feedback.jsonl"
    counts = export(perceived, path)
    assert (counts["accepted"], counts["edited"], counts["rejected"]) == (0, 2, 2)
    found = {(feedback.verdict, feedback.region.label) for feedback in read(path)}
    assert found == {(Verdict.REJECTED, "red"), (Verdict.EDITED, "blue")}


def test_only_what_the_view_shows_is_exported_and_boxes_are_counted(perceived: Any, tmp_path: Path) -> None:
    from fiftyone_plugin.checks import FiftyOneError
    from fiftyone_plugin.operators.feedback import export_feedback

    give_verdict(perceived, 0, Verdict.ACCEPTED)
    give_verdict(perceived, 0, Verdict.ACCEPTED, field="boxes")
    path = tmp_path / "feedback.jsonl"
    assert export_feedback(perceived, "boxes", path)["left_out"] == 1
    assert read(path) == []
    with pytest.raises(FiftyOneError, match="review some first"):
        export_feedback(perceived.skip(1), "regions", path)
    assert export_feedback(perceived.limit(1), "regions", path)["accepted"] == 1
    assert len(read(path)) == 1


def test_the_operator_can_be_called_from_python(perceived: Any, tmp_path: Path) -> None:
    import fiftyone.operators as foo

    give_verdict(perceived, 0, Verdict.ACCEPTED)
    operator = foo.get_operator(f"{URI}/export_feedback")
    assert operator(perceived, "regions", tmp_path / "a.jsonl")["accepted"] == 1
    assert len(read(tmp_path / "a.jsonl")) == 1


def test_a_path_that_cannot_be_used_is_said_and_nothing_is_lost(perceived: Any, tmp_path: Path) -> None:
    from fiftyone_plugin.checks import FiftyOneError
    from fiftyone_plugin.operators.feedback import export_feedback

    give_verdict(perceived, 0, Verdict.ACCEPTED)
    other = tmp_path / "photo.jpg"
    other.write_bytes(b"not feedback")
    for path, wanted in (
        (tmp_path, "is a folder"),
        (tmp_path / "none" / "feedback.jsonl", "There is no folder"),
        (other, "something else than exported feedback"),
        (other / "feedback.jsonl", "There is no folder"),
        ("/proc/feedback.jsonl", "cannot be written"),
        (tmp_path / ("x" * 300), "cannot be"),
        ("a\0b", "cannot be used"),
        ("~nobody_here/x", "cannot be used"),
    ):
        with pytest.raises(FiftyOneError, match=wanted):
            export_feedback(perceived, "regions", path)
    assert other.read_bytes() == b"not feedback"
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".jpg", ".part", ".jsonl")] == ["photo.jpg"]


def test_a_failure_in_the_middle_leaves_the_earlier_file(
    perceived: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fiftyone_plugin.operators import feedback as module

    give_verdict(perceived, 0, Verdict.ACCEPTED)
    path = tmp_path / "feedback.jsonl"
    export(perceived, path)
    before = path.read_bytes()

    def failing(*_: Any) -> Iterator[Feedback]:
        yield read(path)[0]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "reviewed_labels", failing)
    with pytest.raises(RuntimeError, match="No space left"):
        module.export_feedback(perceived, "regions", path)
    assert path.read_bytes() == before
    assert sorted(tmp_path.glob(".*")) == []


def form(dataset: Any, **params: Any) -> dict[str, Any]:
    """The properties of the operator's form as the App gets them."""
    import asyncio

    from fiftyone.operators import executor
    from fiftyone.operators.registry import OperatorRegistry

    request = {"dataset_name": dataset.name, "params": params}
    found = asyncio.run(executor.resolve_type(OperatorRegistry(), f"{URI}/export_feedback", request))
    return dict(found.to_json()["type"]["properties"])


def test_the_form_counts_and_says_what_is_wrong(perceived: Any, tmp_path: Path) -> None:
    assert "review some first" in form(perceived)["misuse"]["view"]["label"]
    give_verdict(perceived, 0, Verdict.ACCEPTED)
    found = form(perceived, path=str(tmp_path / "a.jsonl"))
    assert "misuse" not in found
    assert found["counts"]["view"]["label"] == "1 accepted, 0 edited, 0 rejected"
    assert "is a folder" in form(perceived, path=str(tmp_path))["misuse"]["view"]["label"]
    assert "Got the field" in form(perceived, field="other")["misuse"]["view"]["label"]
    assert "misuse" in form(perceived, field=["x"], path=3)
