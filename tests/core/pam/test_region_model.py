"""PAM on pictures: many regions and questions together are answered as each alone, with less work."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pam_core.contracts import RegionModel, Tracker
from pam_core.errors import PromptError, UnsupportedError
from pam_core.masks import Mask
from pam_core.pam.description import CallCounts
from pam_core.pam.model import PamModel
from pam_core.pam.region_model import PamRegionModel
from pam_core.pam.vision import ImageFeatures, PromptTensors
from pam_core.questions import Answer, Generation, ImageEmbedding, Question, ask, with_answers
from pam_core.types import Prompt, Region
from tests.tiny_pam import EIGHT, picture, region_model

TASKS = ("label", "brief", "detailed")
SHORT = Generation(max_tokens=12, task_tokens={"label": 5, "detailed": 16})


def describe(
    pam_model: PamRegionModel,
    embedding: ImageEmbedding,
    regions: Sequence[Region],
    tasks: Sequence[str] = TASKS,
    languages: Sequence[str] = ("en",),
) -> list[Region]:
    return with_answers(regions, pam_model.describe(ask(embedding, regions, tasks, languages, SHORT)))


def segment(pam_model: PamRegionModel, embedding: ImageEmbedding, prompts: Sequence[Prompt]) -> list[Region]:
    return [region for (region,) in pam_model.segment([(embedding, prompt) for prompt in prompts])]


@pytest.fixture(scope="module")
def together(small: PamModel) -> tuple[PamRegionModel, list[Region]]:
    """Eight regions and three questions in one description."""
    pam_model = region_model(small)
    (embedding,) = pam_model.embed([picture()])
    return pam_model, describe(pam_model, embedding, segment(pam_model, embedding, EIGHT))


def test_it_keeps_the_contracts(pam_model: PamRegionModel) -> None:
    assert isinstance(pam_model, RegionModel)
    assert isinstance(pam_model.open_tracker(), Tracker)


def test_eight_regions_and_three_questions_together_are_24_single_descriptions(
    pam_model: PamRegionModel, together: tuple[PamRegionModel, list[Region]]
) -> None:
    for prompt, region in zip(EIGHT, together[1], strict=True):
        (embedding,) = pam_model.embed([picture()])
        (alone,) = segment(pam_model, embedding, [prompt])
        differing = alone.mask.array != region.mask.array  # a pixel on the edge may fall either way
        assert differing.mean() < 1e-3
        for task in TASKS:
            (answered,) = describe(pam_model, embedding, [alone], [task])
            assert answered.text(task) == region.text(task)
    assert sum(bool(region.text(task)) for region in together[1] for task in TASKS) > 20


def test_a_picture_is_encoded_once_and_a_region_read_once(together: tuple[PamRegionModel, list[Region]]) -> None:
    assert together[0].counts == CallCounts(encoded=1, prefills=8)


def test_pictures_encoded_together_are_those_encoded_alone(pam_model: PamRegionModel) -> None:
    pictures = [picture(), picture("00003.jpg"), picture()[:, ::-1].copy()]
    for one, batched in zip(pictures, pam_model.embed(pictures), strict=True):
        (alone,) = pam_model.embed([one])
        assert alone.nbytes == batched.nbytes
        levels = [(alone.features.coarse, batched.features.coarse)]
        levels += zip(alone.features.fine, batched.features.fine, strict=True)
        for a, b in levels:
            assert float((a - b).abs().max() / a.abs().max()) < 1e-5


def test_a_small_budget_changes_how_many_go_together_and_nothing_else(
    small: PamModel, together: tuple[PamRegionModel, list[Region]]
) -> None:
    tight = region_model(small, budget=1)
    (embedding,) = tight.embed([picture()])
    regions = segment(tight, embedding, EIGHT)
    description = tight.describe(ask(embedding, regions, TASKS, generation=SHORT))
    running = []
    answers: list[Answer] = []
    while not description.done:
        answers += [news for news in description.step() if isinstance(news, Answer)]
        running.append(sum(prefix.cache is not None for prefix in description._prefixes.values()))
    assert max(running) == 1 and tight.counts.prefills == 8
    texts = {(regions.index(a.question.region), a.question.task): a.text for a in answers}  # type: ignore[arg-type]
    assert texts == {(n, task): region.text(task) for n, region in enumerate(together[1]) for task in TASKS}


def test_both_languages_branch_from_one_reading(pam_model: PamRegionModel) -> None:
    (embedding,) = pam_model.embed([picture()])
    (region,) = describe(pam_model, embedding, segment(pam_model, embedding, EIGHT[:1]), TASKS, ("en", "zh"))
    assert pam_model.counts.prefills == 1
    assert {(task, code) for task, by in region.texts.items() for code in by} == {
        (task, code) for task in TASKS for code in ("en", "zh")
    }


def test_regions_of_several_pictures_go_together(pam_model: PamRegionModel) -> None:
    embeddings = pam_model.embed([picture(), picture("00003.jpg"), picture()[:, ::-1].copy()])
    pairs = [(e, region) for e in embeddings for region in segment(pam_model, e, EIGHT[1:3])]
    questions = [question for e, region in pairs[::-1] for question in ask(e, [region], ["brief"], generation=SHORT)]
    mixed = with_answers([region for _, region in pairs], pam_model.describe(questions))
    assert mixed == [describe(pam_model, e, [region], ["brief"])[0] for e, region in pairs]


def test_the_pieces_of_a_text_are_the_text(pam_model: PamRegionModel) -> None:
    (embedding,) = pam_model.embed([picture()])
    regions = segment(pam_model, embedding, EIGHT[:3])
    pieces: dict[int, list[str]] = {}
    answers: dict[int, str] = {}
    for news in pam_model.describe(ask(embedding, regions, TASKS, ("en", "zh"), SHORT)):
        if isinstance(news, Answer):
            assert id(news.question) not in answers
            answers[id(news.question)] = news.text
        else:
            assert id(news.question) not in answers, "text grew after the answer"
            pieces.setdefault(id(news.question), []).append(news.text)
    assert len(answers) == 18
    for key, text in answers.items():
        assert "".join(pieces.get(key, [])) == text
        assert all("\ufffd" not in piece[-1] for piece in pieces.get(key, [])[:-1])
    assert max(len(each) for each in pieces.values()) > 3


def test_regions_of_one_picture_go_through_the_mask_decoder_together(
    pam_model: PamRegionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that wait when the first of them is prefilled; a picture each is a run each."""
    runs: list[int] = []
    answer = pam_model.model.vision.answer_prompts
    prompts = [Prompt.at(20, 20), Prompt.at(100, 90), Prompt.at(140, 30)]
    embeddings = pam_model.embed([picture(), picture("00003.jpg")])
    pairs = [(embedding, region) for embedding in embeddings for region in segment(pam_model, embedding, prompts)]
    questions = [q for embedding, region in pairs for q in ask(embedding, [region], ["label"], generation=SHORT)]

    def counted(features: ImageFeatures, tensors: PromptTensors) -> object:
        runs.append(len(tensors.points))
        return answer(features, tensors)

    monkeypatch.setattr(pam_model.model.vision, "answer_prompts", counted)
    description = pam_model.describe(questions)
    assert runs == [], "nothing is computed before the first step"
    assert description.step() == [] and runs == [3]
    assert len([result for result in description if isinstance(result, Answer)]) == 6
    assert runs == [3, 3] and pam_model.counts.prefills == 6


def test_questions_join_a_region_that_is_running_and_branch_from_it(pam_model: PamRegionModel) -> None:
    embedding, regions = shared_regions(pam_model.model)
    first, second = ask(embedding, regions[:1], ["detailed"], ("en", "zh"), SHORT)
    description = pam_model.describe([first])
    for _ in range(4):
        description.step()
    description.add([second])
    assert pam_model.counts.prefills == 1
    texts = {id(result.question): result.text for result in description if isinstance(result, Answer)}
    assert pam_model.counts.prefills == 1
    for question in (first, second):
        (alone,) = [result for result in pam_model.describe([question]) if isinstance(result, Answer)]
        assert texts[id(question)] == alone.text


def test_a_prefix_goes_with_its_last_question(pam_model: PamRegionModel) -> None:
    embedding, regions = shared_regions(pam_model.model)
    questions = ask(embedding, regions[:1], TASKS, generation=SHORT)
    description = pam_model.describe(questions)
    description.step()
    (prefix,) = description._prefixes.values()
    cache = weakref.ref(prefix.cache)
    del prefix
    for question in questions:
        assert cache() is not None and not description.done
        description.cancel(question)
    assert description.done and cache() is None
    assert description.step() == []


def test_the_budget_counts_the_tokens_of_answered_questions(pam_model: PamRegionModel) -> None:
    """They stay in the cache as long as another question of the region runs."""
    embedding, regions = shared_regions(pam_model.model)
    label, detailed = ask(embedding, regions[:1], ["label", "detailed"], generation=SHORT)
    description = pam_model.describe([label, detailed])
    description.step()
    (prefix,) = description._prefixes.values()
    most = prefix.tokens
    while not any(isinstance(result, Answer) for result in description.step()):
        pass
    held = prefix.visual_length + prefix.cache.length - prefix.cache.prefix
    assert held <= prefix.tokens <= most
    assert prefix.requests and prefix.tokens == held + prefix.requests[0].unread


@settings(max_examples=25)
@given(data=st.data())
def test_answers_do_not_depend_on_company(
    small: PamModel, together: tuple[PamRegionModel, list[Region]], data
) -> None:  # type: ignore[no-untyped-def]
    """Questions that come and are cancelled between any steps: nothing lost, nothing twice, texts as in one go."""
    pam_model = region_model(small, budget=data.draw(st.sampled_from([1, 2**20, 2**32])))
    embedding, regions = data.draw(st.just(shared_regions(small)))
    waiting = ask(embedding, regions[:4], TASKS, generation=SHORT)
    waiting = data.draw(st.permutations(waiting))[: data.draw(st.integers(1, 8))]
    description = pam_model.describe([])
    added: list[Question] = []
    cancelled: list[Question] = []
    answers: list[Answer] = []
    while waiting or not description.done:
        action = data.draw(st.sampled_from("aaacsssss"))
        if action == "a" and waiting:
            added.append(waiting.pop())
            description.add(added[-1:])
        elif action == "c" and added:
            question = data.draw(st.sampled_from(added))
            if not any(answer.question is question for answer in answers):
                cancelled.append(question)
            description.cancel(question)
        else:
            answers += [news for news in description.step() if isinstance(news, Answer)]
    expected = [question for question in added if not any(question is other for other in cancelled)]
    assert {id(answer.question) for answer in answers} == {id(question) for question in expected}
    assert len(answers) == len(expected)
    for answer in answers:
        number = next(n for n, region in enumerate(regions) if region is answer.question.region)
        assert answer.text == together[1][number].text(answer.question.task)
    assert description._prefixes == {} and description._requests == {} and description._decoder.running == []


@lru_cache(maxsize=1)
def shared_regions(small: PamModel) -> tuple[ImageEmbedding, list[Region]]:
    pam_model = region_model(small)
    (embedding,) = pam_model.embed([picture()])
    return embedding, segment(pam_model, embedding, EIGHT)


def test_a_mask_alone_is_its_own_answer(pam_model: PamRegionModel) -> None:
    (embedding,) = pam_model.embed([picture()])
    (region,) = segment(pam_model, embedding, [EIGHT[7]])
    assert region.mask == EIGHT[7].mask
    assert region.presence == pytest.approx(1.0, abs=1e-3)
    assert region.predicted_iou is None


def test_a_mask_of_one_pixel_can_be_described(pam_model: PamRegionModel) -> None:
    (embedding,) = pam_model.embed([np.zeros((3000, 3000, 3), np.uint8)])
    speck = np.zeros((3000, 3000), bool)
    speck[1500, 1500] = True
    (region,) = describe(pam_model, embedding, segment(pam_model, embedding, [Prompt.from_mask(speck)]), ["label"])
    assert region.presence == pytest.approx(1.0, abs=1e-3)
    assert region.text("label")


def test_points_refine_a_box_and_a_mask(pam_model: PamRegionModel) -> None:
    (embedding,) = pam_model.embed([picture()])
    mask = EIGHT[7].mask
    prompts = [
        Prompt(box=(40, 34, 100, 82)),
        Prompt(points=((70, 58),), labels=(1,), box=(40, 34, 100, 82)),
        Prompt(points=((70, 58),), labels=(0,), box=(40, 34, 100, 82)),
        Prompt(points=((70, 58),), mask=mask),
        Prompt(points=((70, 58),), box=(40, 34, 100, 82), mask=mask),
    ]
    regions = segment(pam_model, embedding, prompts)
    assert len({region.predicted_iou for region in regions}) == len(prompts)


def test_a_region_without_a_prompt_is_described_from_its_mask(pam_model: PamRegionModel) -> None:
    (embedding,) = pam_model.embed([picture()])
    (region,) = segment(pam_model, embedding, [EIGHT[7]])
    (a,) = describe(pam_model, embedding, [region], ["label"])
    (b,) = describe(pam_model, embedding, [replace(region, prompt=None)], ["label"])
    assert a.texts == b.texts


def test_what_cannot_be_asked_is_refused_before_any_work(pam_model: PamRegionModel) -> None:
    (embedding,) = pam_model.embed([picture()])
    (region,) = segment(pam_model, embedding, EIGHT[:1])
    with pytest.raises(UnsupportedError, match="cannot do the task 'colour'"):
        describe(pam_model, embedding, [region], ["colour"])
    with pytest.raises(UnsupportedError, match="in de"):
        describe(pam_model, embedding, [region], ["label"], ("de",))
    with pytest.raises(PromptError, match="outside the picture"):
        segment(pam_model, embedding, [Prompt.at(160, 5)])
    with pytest.raises(PromptError, match="empty mask"):
        describe(
            pam_model, embedding, [replace(region, prompt=None, mask=Mask.from_array(np.zeros((120, 160), bool)))]
        )
    assert pam_model.counts.prefills == 0


def test_no_regions_are_no_work(pam_model: PamRegionModel) -> None:
    (embedding,) = pam_model.embed([picture()])
    assert segment(pam_model, embedding, []) == []
    assert describe(pam_model, embedding, [], ["label"]) == [] and pam_model.embed([]) == []


def test_the_embedding_knows_its_size(pam_model: PamRegionModel) -> None:
    (embedding,) = pam_model.embed([picture()])
    sizes = [8 * 64 * 64, 16 * 32 * 32, 64 * 16 * 16, 64 * 16 * 16]
    assert (embedding.width, embedding.height, embedding.nbytes) == (160, 120, 4 * sum(sizes))
