"""PAM on videos. That it computes what the reference computes is compared in test_parity.py."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pam_core.errors import PromptError, UnsupportedError, VideoError
from pam_core.pam.clips import PamClip, clip_length, clip_sequence, sample_frames
from pam_core.pam.model import PamModel
from pam_core.pam.region_model import PamRegionModel
from pam_core.questions import Answer, Generation, Question, ask, with_answers
from pam_core.tasks import CLIP_TASK
from pam_core.types import Prompt, Region
from pam_core.video import Frame
from tests.tiny_pam import EIGHT, INFO, QUESTIONS, frame, region_model

SHORT = Generation(max_tokens=6)
BOX, CLICK, MASK = EIGHT[2], EIGHT[1], EIGHT[7]


def alike(a: Region, b: Region) -> bool:
    differing = a.mask.array != b.mask.array
    return float(differing.mean()) < 2e-3 and a.presence == pytest.approx(b.presence, abs=1e-3)


def test_objects_together_are_tracked_as_each_alone_and_a_frame_is_encoded_once(pam_model: PamRegionModel) -> None:
    prompts = {7: BOX, 2: CLICK, 5: MASK}
    together = pam_model.open_tracker()
    found = [together.add(frame(0), prompts), *(together.step(frame(n)) for n in range(1, 5))]
    assert [region.track_id for region in found[0]] == [7, 2, 5]
    assert all([region.track_id for region in regions] == [2, 5, 7] for regions in found[1:])
    assert together.encoded == 5
    for number, prompt in prompts.items():
        alone = pam_model.open_tracker()
        for index, regions in enumerate(found):
            (region,) = alone.add(frame(0), {number: prompt}) if index == 0 else alone.step(frame(index))
            (same,) = [each for each in regions if each.track_id == number]
            assert alike(region, same), (number, index)
            assert (region.frame, region.time) == (index, index / 10)


def test_an_object_that_comes_later_changes_nothing_for_the_others(pam_model: PamRegionModel) -> None:
    alone, both = pam_model.open_tracker(), pam_model.open_tracker()
    for tracker in (alone, both):
        tracker.add(frame(0), {1: BOX})
    for index in range(1, 6):
        (a,) = alone.step(frame(index))
        b = both.step(frame(index))
        assert alike(a, b[0])
        if index == 2:
            both.add(frame(2), {9: CLICK})
    assert [region.track_id for region in b] == [1, 9]


def test_a_correction_is_the_answer_and_is_remembered(pam_model: PamRegionModel) -> None:
    plain, corrected = pam_model.open_tracker(), pam_model.open_tracker()
    for tracker in (plain, corrected):
        tracker.add(frame(0), {1: BOX})
        tracker.step(frame(1))
    (given_mask,) = corrected.add(frame(1), {1: MASK})
    assert given_mask.mask == MASK.mask
    (refined,) = corrected.add(frame(1), {1: Prompt(points=((70, 58), (10, 10)), labels=(1, 0))})
    assert refined.mask != given_mask.mask
    assert not alike(plain.step(frame(2))[0], corrected.step(frame(2))[0])


def test_what_is_removed_is_tracked_no_longer(pam_model: PamRegionModel) -> None:
    tracker = pam_model.open_tracker()
    tracker.add(frame(0), {1: BOX, 2: CLICK})
    tracker.remove(1)
    tracker.remove(77)
    assert [region.track_id for region in tracker.step(frame(1))] == [2]
    tracker.remove(2)
    assert tracker.step(frame(2)) == []


def test_bad_prompts_are_refused_before_any_work(pam_model: PamRegionModel) -> None:
    tracker = pam_model.open_tracker()
    with pytest.raises(PromptError, match="outside the picture"):
        tracker.add(frame(0), {1: BOX, 2: Prompt.at(500, 5)})
    assert tracker.encoded == 0 and tracker.step(frame(0)) == []
    with pytest.raises(VideoError, match="prompt for frame 3 at frame 0"):
        tracker.add(frame(3), {1: BOX})


def test_the_memory_of_a_long_video_is_bounded(small: PamModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same picture again and again; what is kept is counted. Smaller bounds are reached sooner."""
    monkeypatch.setattr("pam_core.pam.clips.KEPT_FRAMES", 4)
    monkeypatch.setattr("pam_core.pam.tracking.MOST_POINTERS", 8)
    monkeypatch.setattr("pam_core.pam.tracking.MOST_PROMPTED", 3)
    tracker = region_model(small).open_tracker()
    still = frame(0).picture
    tracker.add(Frame(0, 0.0, still), {1: BOX})
    sizes = []
    for index in range(1, 13):
        tracker.step(Frame(index, index / 10, still))
        memory, clip = tracker.sam.objects[1], tracker._clips[1]
        sizes.append(len(memory.seen))
        assert len([m for m in memory.seen.values() if m.features is not None]) <= small.config.vision.memories - 1
        assert len(clip.frames) < 4
        if index % 3 == 0:
            tracker.add(Frame(index, index / 10, still), {1: CLICK})
    assert max(sizes) < 8
    assert len(tracker.sam.objects[1].prompted) <= 3 and 0 in tracker.sam.objects[1].prompted
    clip = tracker.cut(1)
    gaps = np.diff([each.index for each in clip.frames])
    assert gaps.min() == gaps.max() == 4
    assert (clip.first, clip.last) == (0, 12)


def test_clips_share_the_frame_between_them(pam_model: PamRegionModel) -> None:
    tracker = pam_model.open_tracker()
    tracker.add(frame(0), {1: BOX})
    for index in range(1, 4):
        tracker.step(frame(index))
    first = tracker.cut(1)
    tracker.step(frame(4))
    second = tracker.cut(1)
    assert [(c.track_id, c.first, c.last) for c in (first, second)] == [(1, 0, 3), (1, 3, 4)]
    assert [each.index for each in first.frames] == [1, 2, 3]
    assert len(second.opening.visual) == 16 * len(second.frames[0].visual) // 4
    lonely = tracker.cut(1)
    assert (lonely.first, lonely.last, lonely.frames) == (4, 4, ())


def captions(
    pam: PamRegionModel, clips: Sequence[PamClip], previous: Sequence[dict[str, str]] = ({}, {}, {}, {})
) -> list[dict[str, str]]:
    """A caption of each clip in both languages, from one description."""
    questions = [
        Question(CLIP_TASK, code, clip=clip, previous=history.get(code, ""), generation=SHORT)
        for clip, history in zip(clips, previous, strict=False)
        for code in ("en", "zh")
    ]
    texts: list[dict[str, str]] = [{} for _ in clips]
    for answer in pam.describe(questions):
        if isinstance(answer, Answer):
            number = next(n for n, clip in enumerate(clips) if clip is answer.question.clip)
            texts[number][answer.question.language] = answer.text
    return texts


def test_clips_of_any_length_are_described_together_as_each_alone(small: PamModel, pam_model: PamRegionModel) -> None:
    tracker = pam_model.open_tracker()
    tracker.add(frame(0), {1: BOX, 2: CLICK})
    clips = [tracker.cut(2)]
    for index in range(1, 6):
        tracker.step(frame(index))
        if index == 3:
            clips.append(tracker.cut(2))
    clips += [tracker.cut(1), tracker.cut(2)]
    previous = [{}, {"en": "a concise label"}, {"zh": "标签"}, {}]
    together = captions(pam_model, clips, previous)
    assert captions(region_model(small, budget=1), clips, previous) == together
    for clip, history, texts in zip(clips, previous, together, strict=True):
        assert set(texts) == {"en", "zh"}
        assert captions(pam_model, [clip], [history]) == [texts]
        frames = (clip.opening, *clip.frames)
        with torch.inference_mode():
            assert len(clip_sequence(small, frames)) == clip_length(small, len(frames))
    without_history = captions(pam_model, clips)
    assert without_history[0] == together[0] and without_history[1]["en"] != together[1]["en"]


def test_clips_and_regions_share_a_description(pam_model: PamRegionModel) -> None:
    tracker = pam_model.open_tracker()
    tracker.add(frame(0), {1: BOX})
    clip = tracker.cut(1)
    (embedding,) = pam_model.embed([frame(0).picture])
    ((region,),) = pam_model.segment([(embedding, BOX)])
    about_clip = Question(CLIP_TASK, clip=clip, generation=SHORT)
    about_region = ask(embedding, [region], ["brief"], generation=SHORT)
    texts = {
        id(answer.question): answer.text
        for answer in pam_model.describe([about_clip, *about_region])
        if isinstance(answer, Answer)
    }
    assert texts[id(about_clip)] == captions(pam_model, [clip])[0]["en"]
    (alone,) = with_answers([region], pam_model.describe(about_region))
    assert alone.text("brief") == texts[id(about_region[0])]


def test_a_clip_of_another_tracker_or_in_another_language_is_refused(pam_model: PamRegionModel) -> None:
    tracker = pam_model.open_tracker()
    tracker.add(frame(0), {1: BOX})
    with pytest.raises(UnsupportedError, match="cannot caption clips in de"):
        pam_model.describe([Question(CLIP_TASK, "de", clip=tracker.cut(1))])
    other = SimpleNamespace(track_id=1, first=0, last=1)
    with pytest.raises(UnsupportedError, match="Got a clip of SimpleNamespace"):
        pam_model.describe([Question(CLIP_TASK, clip=other)])


def test_the_signature_is_a_unit_vector(pam_model: PamRegionModel) -> None:
    tracker = pam_model.open_tracker()
    tracker.add(frame(0), {1: BOX})
    before = tracker.signature(1)
    tracker.step(frame(1))
    assert float(np.linalg.norm(tracker.signature(1))) == pytest.approx(1.0, abs=1e-5)
    assert not np.array_equal(before, tracker.signature(1))


@given(st.integers(1, 500), st.integers(3, 16))
def test_frames_are_sampled_from_the_first_to_the_last(count: int, most: int) -> None:
    picked = sample_frames(count, most)
    assert picked[0] == 0 and picked[-1] == count - 1
    assert picked == sorted(set(picked)) and len(picked) == min(count, most)


def test_which_frames_are_read_is_a_parameter(small: PamModel) -> None:
    counts: list[int] = []

    def latest(count: int) -> list[int]:
        counts.append(count)
        return [0, count - 1]

    model = PamRegionModel(small, INFO, QUESTIONS, sample=latest)
    tracker = model.open_tracker()
    tracker.add(frame(0), {1: BOX})
    for index in range(1, 4):
        tracker.step(frame(index))
    (texts,) = captions(model, [tracker.cut(1)])
    assert set(counts) == {4} and texts["en"]
