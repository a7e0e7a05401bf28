"""PAM on pictures: one call for many regions and questions says what single calls say, and does less for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pam_core.errors import PromptError, UnsupportedError
from pam_core.masks import Mask
from pam_core.pam.image_model import PamImageModel
from pam_core.pam.model import PamModel
from pam_core.questions import Generation
from pam_core.types import Prompt, Region
from tests.tiny_pam import EIGHT, picture, region_model

TASKS = ("label", "brief", "detailed")
SHORT = Generation(max_tokens=12, task_tokens={"label": 5, "detailed": 16})


@pytest.fixture(scope="module")
def together(small: PamModel) -> tuple[PamImageModel, list[Region]]:
    """Eight regions and three questions in one call."""
    pam = region_model(small)
    embedding = pam.embed(picture())
    return pam, pam.describe(embedding, pam.segment(embedding, EIGHT), TASKS, generation=SHORT)


def test_eight_regions_and_three_questions_in_one_call_are_24_single_calls(
    pam: PamImageModel, together: tuple[PamImageModel, list[Region]]
) -> None:
    for prompt, region in zip(EIGHT, together[1], strict=True):
        embedding = pam.embed(picture())
        (alone,) = pam.segment(embedding, [prompt])
        differing = alone.mask.array != region.mask.array  # a pixel on the edge may fall either way
        assert differing.mean() < 1e-3
        for task in TASKS:
            (answered,) = pam.describe(embedding, [alone], [task], generation=SHORT)
            assert answered.text(task) == region.text(task)
    assert sum(bool(region.text(task)) for region in together[1] for task in TASKS) > 20


def test_a_picture_is_encoded_once_and_a_region_read_once(together: tuple[PamImageModel, list[Region]]) -> None:
    assert (together[0].work.encoded, together[0].work.prefills) == (1, 8)


def test_a_small_budget_changes_how_many_go_together_and_nothing_else(
    small: PamModel, together: tuple[PamImageModel, list[Region]]
) -> None:
    tight = region_model(small, budget=1)
    embedding = tight.embed(picture())
    assert tight.describe(embedding, tight.segment(embedding, EIGHT), TASKS, generation=SHORT) == together[1]
    assert tight.work.prefills == 8


def test_both_languages_branch_from_one_reading(pam: PamImageModel) -> None:
    embedding = pam.embed(picture())
    (region,) = pam.describe(embedding, pam.segment(embedding, EIGHT[:1]), TASKS, ("en", "zh"), SHORT)
    assert pam.work.prefills == 1
    assert {(task, code) for task, by in region.texts.items() for code in by} == {
        (task, code) for task in TASKS for code in ("en", "zh")
    }


def test_regions_of_several_pictures_go_together(pam: PamImageModel) -> None:
    pictures = [picture(), picture("00003.jpg"), picture()[:, ::-1].copy()]
    embeddings = [pam.embed(each) for each in pictures]
    pairs = [(e, region) for e in embeddings for region in pam.segment(e, EIGHT[1:3])]
    mixed = pam.describe_many(pairs[::-1], ["brief"], generation=SHORT)[::-1]
    apart = [pam.describe(e, [region], ["brief"], generation=SHORT)[0] for e, region in pairs]
    assert mixed == apart


def test_a_text_is_told_while_it_grows_and_the_pieces_are_the_text(pam: PamImageModel) -> None:
    embedding = pam.embed(picture())
    told: dict[tuple[int, str, str], list[str]] = {}
    regions = pam.describe(
        embedding,
        pam.segment(embedding, EIGHT[:3]),
        TASKS,
        ("en", "zh"),
        SHORT,
        on_text=lambda region, task, code, piece: told.setdefault((region, task, code), []).append(piece),
    )
    for number, region in enumerate(regions):
        for task in TASKS:
            for code in ("en", "zh"):
                pieces = told.get((number, task, code), [])
                assert "".join(pieces) == region.text(task, code)
                assert all("\ufffd" not in piece[-1] for piece in pieces[:-1])
    assert max(len(pieces) for pieces in told.values()) > 3


def test_a_mask_alone_is_its_own_answer(pam: PamImageModel) -> None:
    (region,) = pam.segment(pam.embed(picture()), [EIGHT[7]])
    assert region.mask == EIGHT[7].mask
    assert region.presence == pytest.approx(1.0, abs=1e-3)
    assert region.predicted_iou is None


def test_a_mask_of_one_pixel_can_be_described(pam: PamImageModel) -> None:
    embedding = pam.embed(np.zeros((3000, 3000, 3), np.uint8))
    speck = np.zeros((3000, 3000), bool)
    speck[1500, 1500] = True
    (region,) = pam.describe(
        embedding, pam.segment(embedding, [Prompt.from_mask(speck)]), ["label"], generation=SHORT
    )
    assert region.presence == pytest.approx(1.0, abs=1e-3)
    assert region.text("label")


def test_points_refine_a_box_and_a_mask(pam: PamImageModel) -> None:
    embedding = pam.embed(picture())
    mask = EIGHT[7].mask
    prompts = [
        Prompt(box=(40, 34, 100, 82)),
        Prompt(points=((70, 58),), labels=(1,), box=(40, 34, 100, 82)),
        Prompt(points=((70, 58),), labels=(0,), box=(40, 34, 100, 82)),
        Prompt(points=((70, 58),), mask=mask),
        Prompt(points=((70, 58),), box=(40, 34, 100, 82), mask=mask),
    ]
    regions = pam.segment(embedding, prompts)
    assert len({region.predicted_iou for region in regions}) == len(prompts)


def test_a_region_without_a_prompt_is_described_from_its_mask(pam: PamImageModel) -> None:
    embedding = pam.embed(picture())
    (region,) = pam.segment(embedding, [EIGHT[7]])
    (a,) = pam.describe(embedding, [region], ["label"], generation=SHORT)
    (b,) = pam.describe(embedding, [replace(region, prompt=None)], ["label"], generation=SHORT)
    assert a.texts == b.texts


def test_what_cannot_be_asked_is_refused_before_any_work(pam: PamImageModel) -> None:
    embedding = pam.embed(picture())
    (region,) = pam.segment(embedding, EIGHT[:1])
    with pytest.raises(UnsupportedError, match="cannot do the task 'colour'"):
        pam.describe(embedding, [region], ["colour"])
    with pytest.raises(UnsupportedError, match="in de"):
        pam.describe(embedding, [region], ["label"], ("de",))
    with pytest.raises(PromptError, match="outside the picture"):
        pam.segment(embedding, [Prompt.at(160, 5)])
    with pytest.raises(PromptError, match="empty mask"):
        pam.describe(embedding, [replace(region, prompt=None, mask=Mask.from_array(np.zeros((120, 160), bool)))], [])
    assert pam.work.prefills == 0


def test_no_regions_are_no_work(pam: PamImageModel) -> None:
    embedding = pam.embed(picture())
    assert pam.segment(embedding, []) == []
    assert pam.describe(embedding, [], ["label"]) == []


def test_the_embedding_knows_its_size(pam: PamImageModel) -> None:
    embedding = pam.embed(picture())
    sizes = [8 * 64 * 64, 16 * 32 * 32, 64 * 16 * 16, 64 * 16 * 16]
    assert (embedding.width, embedding.height, embedding.nbytes) == (160, 120, 4 * sum(sizes))
