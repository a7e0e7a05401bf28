"""LiteModel: the contract of a RegionModel, and reading what is written."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from pam_core.contracts import RegionModel
from pam_core.errors import UnsupportedError
from pam_core.questions import ask, with_answers
from pam_core.types import Prompt
from pam_plugins.api import perceive
from pam_plugins.models.lite import pam_models
from pam_plugins.models.lite.info import INFO
from pam_plugins.models.lite.model import LiteModel, load
from pam_plugins.models.lite.naming import MIN_DETECTION_SCORE, Detection, box_iou, detected_shares
from pam_plugins.options import Options


@pytest.fixture(scope="module")
def model() -> LiteModel:
    return load("cpu")


def sign(words: str) -> np.ndarray:
    """A white sign on a grey wall."""
    picture = np.full((240, 480, 3), 120, np.uint8)
    picture[60:180, 60:420] = 250
    cv2.putText(picture, words, (85, 140), cv2.FONT_HERSHEY_SIMPLEX, 2.0, (10, 10, 10), 5)
    return picture


def test_it_is_a_region_model_and_its_info_brings_the_loader(model: LiteModel) -> None:
    assert isinstance(model, RegionModel)
    (info,) = pam_models()
    assert info == INFO
    assert info.load is not None and isinstance(info.load("cpu", False), LiteModel)


def test_a_region_has_every_text_in_both_languages_and_says_which_model_gave_it(model: LiteModel) -> None:
    tasks = ("label", "explanation", "brief", "detailed")
    region = perceive(
        sign("STOP"),
        [Prompt(box=(60, 60, 420, 180))],
        model=model,
        options=Options(tasks=tasks, languages=("en", "zh")),
    ).regions[0]
    assert region.model == INFO.ref
    assert set(region.texts) == set(tasks)
    assert all(region.text(task, code) for task in tasks for code in ("en", "zh"))
    assert 0 <= region.scores["label"] <= 1


def test_an_object_too_unsure_to_be_named_says_which_mask_a_click_means(model: LiteModel) -> None:
    """The box must reach the segmenter with its bare score: as a name it has no weight at all."""
    (embedding,) = model.embed([sign("STOP")])
    click, letters = Prompt.at(120, 100), (88.0, 95.5, 182.0, 144.5)
    unsure = Detection(letters, MIN_DETECTION_SCORE, model.nouns.coco[0])
    assert not detected_shares(letters, [unsure])
    ((without,), (with_box,)) = model.segment(
        [(replace(embedding, detections=()), click), (replace(embedding, detections=(unsure,)), click)]
    )
    assert box_iou(without.box, letters) < 0.5
    assert box_iou(with_box.box, letters) > 0.6


def test_what_is_written_on_a_region_is_read(model: LiteModel) -> None:
    """With the models inside RapidOCR's wheel; nothing is fetched."""
    pytest.importorskip("rapidocr")
    picture = sign("HELLO")
    asked = Options(tasks=("text", "detailed"), languages=("en",))
    prompts = [Prompt(box=(60, 60, 420, 180)), Prompt.at(20, 20)]
    written, bare = perceive(picture, prompts, model=model, options=asked).regions
    assert written.text("text").replace(" ", "").upper() == "HELLO"
    assert "“HELLO”" in written.text("detailed")
    assert bare.text("text") == ""
    assert "written" not in bare.text("detailed")


def test_a_task_that_cannot_be_done_here_is_refused_before_any_work(
    model: LiteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = {task: known for task, known in INFO.tasks.items() if task != "text"}
    monkeypatch.setattr(model, "info", replace(INFO, tasks=tasks, lacking={"text": "pip install it."}))
    monkeypatch.setattr(model, "embed", lambda picture: pytest.fail("it began to work"))
    with pytest.raises(UnsupportedError, match="cannot do the task 'text' here: pip install it"):
        perceive(sign("NO"), [Prompt.at(1, 1)], model=model, options=Options(tasks=("text",)))


def test_an_embedding_of_another_model_is_refused(model: LiteModel) -> None:
    with pytest.raises(UnsupportedError, match="Got an embedding of SimpleNamespace"):
        model.segment([(SimpleNamespace(width=9, height=9, nbytes=1), Prompt.at(1, 1))])


def test_pictures_of_one_pixel_and_of_one_colour_are_answered(model: LiteModel) -> None:
    for picture in (np.zeros((1, 1, 3), np.uint8), np.full((70, 90, 3), 255, np.uint8)):
        region = perceive(picture, [Prompt.at(0, 0)], model=model).regions[0]
        assert region.text("brief").endswith(".")


def test_a_region_asked_alone_and_in_company_without_neighbours_reads_the_same(model: LiteModel) -> None:
    """Questions bring their context: who is described in the same batch changes nothing."""
    (embedding,) = model.embed([sign("STOP")])
    prompts = [Prompt(box=(60, 60, 420, 180)), Prompt.at(20, 20)]
    regions = [found[0] for found in model.segment([(embedding, prompt) for prompt in prompts])]
    alone = [with_answers([region], model.describe(ask(embedding, [region], ["detailed"])))[0] for region in regions]
    separate = [question for region in regions for question in ask(embedding, [region], ["detailed"])]
    assert with_answers(regions, model.describe(separate)) == alone
