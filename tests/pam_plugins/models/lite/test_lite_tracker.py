"""LiteTracker: the contract of a Tracker, on short made-up videos of drawn things. Small pictures for the encoder:
the logic is tested, not how exact the masks are (benchmarks/video_lite.py).
"""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import psutil
import pytest

from benchmarks.made_up_videos import MadeUpVideo, drawn_cut_out, make_video
from pam_core.contracts import RegionModel, Tracker
from pam_core.errors import PromptError, UnsupportedError, VideoError
from pam_core.questions import Answer, Clip, Question
from pam_core.types import Prompt, Region
from pam_core.video import Frame
from pam_plugins.models.lite.clips import SAMPLE_SIDE, SAMPLES, ClipMaker, Sample
from pam_plugins.models.lite.info import INFO
from pam_plugins.models.lite.model import LiteModel, load
from pam_plugins.models.lite.naming import Detection
from pam_plugins.models.lite.sort import Sort
from pam_plugins.models.lite.tracker import LiteTracker

SIDE = 256


@pytest.fixture(scope="module")
def model() -> LiteModel:
    return load("cpu")


def new_tracker(model: LiteModel, side: int = SIDE) -> LiteTracker:
    return LiteTracker(model.segmenter, model.recognizer, model.info.ref, side=side)


def film(kind: str, frames: int = 12, seed: int = 1) -> MadeUpVideo:
    """Blobs of red and of blue over a quiet green background."""
    things = [drawn_cut_out(1, (200, 50, 40)), drawn_cut_out(2, (40, 60, 200))]
    ground = np.random.default_rng(0).integers(90, 120, (120, 160, 3)).astype(np.uint8)
    ground[..., 1] += 40
    return make_video(kind, np.random.default_rng(seed), things, ground, frames, (160, 120))


def follow(tracker: LiteTracker, video: MadeUpVideo) -> list[list[Region]]:
    """The regions of every frame."""
    return [tracker.add(video.frames[0], video.prompts()), *(tracker.step(frame) for frame in video.frames[1:])]


def describe(model: LiteModel, *clips: Clip, language: str = "en") -> list[str]:
    questions = [Question("brief", language, clip=clip) for clip in clips]
    return [new.text for new in model.describe(questions) if isinstance(new, Answer)]


def iou(region: Region, known: np.ndarray) -> float:
    found = region.mask.array
    return float((found & known).sum() / max(1, (found | known).sum()))


def test_lite_is_a_video_model(model: LiteModel) -> None:
    assert INFO.video and isinstance(model, RegionModel)
    assert isinstance(model.open_tracker(), Tracker)


def test_an_object_is_followed_and_each_region_says_where_it_is_from(model: LiteModel) -> None:
    video = film("straight")
    seen = follow(new_tracker(model), video)
    assert np.mean([iou(of_frame[0], known) for of_frame, known in zip(seen, video.masks[0], strict=True)]) > 0.8
    for frame, (region,) in zip(video.frames, seen, strict=True):
        assert (region.track_id, region.frame, region.time) == (1, frame.index, frame.time)
        assert region.presence is not None and 0.5 < region.presence <= 1
        assert region.model == INFO.ref


def test_frames_may_run_backward(model: LiteModel) -> None:
    video = film("straight")
    back = replace(video, frames=video.frames[::-1], masks=video.masks[:, ::-1])
    tracker = new_tracker(model)
    seen = follow(tracker, back)
    assert iou(seen[-1][0], video.masks[0, 0]) > 0.7
    clip = tracker.cut(1)
    assert (clip.first, clip.last) == (11, 0)
    assert clip.motion.speed is not None and clip.motion.speed > 0


def test_objects_that_cross_keep_their_tracks_and_all_prompts_of_a_frame_are_one_batch(
    model: LiteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = film("crossing", 24)
    tracker = new_tracker(model)
    batches: list[int] = []
    decode = tracker.video_segmenter.decode
    monkeypatch.setattr(
        tracker.video_segmenter, "decode", lambda f, prompts: batches.append(len(prompts)) or decode(f, prompts)
    )
    behind, in_front = follow(tracker, video)[-1]
    assert iou(in_front, video.masks[1, -1]) > 0.8
    assert iou(behind, video.masks[1, -1]) < 0.05
    assert len(batches) == len(video.frames) - 1


def test_no_pixel_is_of_two_objects(model: LiteModel) -> None:
    for one, other in follow(new_tracker(model), film("crossing", 24))[1:]:
        both = (one.mask.array & other.mask.array).sum()
        assert both <= 0.02 * max(1, min(one.mask.area, other.mask.area))  # their edges are between cells


def test_an_unprompted_object_does_not_capture_a_track(model: LiteModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that cross and look alike only one is prompted; a made-up detector finds both, on some frames as one."""
    things = [drawn_cut_out(1, (200, 50, 40))] * 2
    ground = np.random.default_rng(0).integers(90, 120, (120, 160, 3)).astype(np.uint8)
    video = make_video("crossing", np.random.default_rng(1), things, ground, 24, (160, 120))
    boxes = iter(
        [[Prompt.from_mask(mask).mask.box for mask in masks if mask.any()] for masks in video.masks.swapaxes(0, 1)]
    )
    monkeypatch.setattr(
        model.recognizer, "detect", lambda picture, parts: [Detection(box, 0.8, "thing") for box in next(boxes)]
    )
    tracker = new_tracker(model)
    tracker.add(video.frames[0], {1: Prompt.from_mask(video.masks[0, 0])})
    for frame in video.frames[1:]:
        (region,) = tracker.step(frame)
    assert iou(region, video.masks[0, -1]) > 0.5 > iou(region, video.masks[1, -1])


def test_an_object_that_leaves_is_lost_and_found_again(model: LiteModel) -> None:
    video = film("comeback", 24)
    tracker = new_tracker(model)
    seen = follow(tracker, video)
    away = ~video.masks[0].any(axis=(1, 2))
    assert away.sum() >= 3
    for index in np.flatnonzero(away):
        assert seen[index][0].mask.area == 0
        assert seen[index][0].presence < 0.5
    assert iou(seen[-1][0], video.masks[0, -1]) > 0.5
    motion = tracker.cut(1).motion
    assert motion.away > 0 and not motion.lost


def test_an_object_is_lost_behind_another_thing_and_found_when_it_comes_out(model: LiteModel) -> None:
    video = film("behind", 24)
    regions = [of_frame[0] for of_frame in follow(new_tracker(model), video)]
    hidden = np.flatnonzero(~video.masks[0].any(axis=(1, 2)))
    assert len(hidden) and all(regions[index].mask.area == 0 for index in hidden)
    assert iou(regions[-1], video.masks[0, -1]) > 0.7


def test_adding_again_corrects_and_keeps_the_number(model: LiteModel) -> None:
    video = film("crossing")
    tracker = new_tracker(model)
    tracker.add(video.frames[0], {7: Prompt.from_mask(video.masks[0, 0])})
    tracker.step(video.frames[1])
    (corrected,) = tracker.add(video.frames[1], {7: Prompt.from_mask(video.masks[1, 1])})
    assert corrected.track_id == 7 and iou(corrected, video.masks[1, 1]) == 1
    (region,) = tracker.step(video.frames[2])
    assert iou(region, video.masks[1, 2]) > 0.6


def test_clicks_and_boxes_begin_a_track_too(model: LiteModel) -> None:
    video = film("crossing")
    box = tuple(map(float, video.prompts()[1].mask.box))
    x, y = np.argwhere(video.masks[1, 0]).mean(axis=0)[::-1]
    regions = new_tracker(model).add(video.frames[0], {2: Prompt.at(x, y), 1: Prompt(box=box)})
    assert [region.track_id for region in regions] == [2, 1]
    assert iou(regions[0], video.masks[1, 0]) > 0.7 and iou(regions[1], video.masks[0, 0]) > 0.7


def test_a_bad_prompt_is_refused_before_any_work(model: LiteModel, monkeypatch: pytest.MonkeyPatch) -> None:
    video = film("straight", 2)
    tracker = new_tracker(model)
    monkeypatch.setattr(tracker.video_segmenter, "embed", lambda picture: pytest.fail("it began to work"))
    with pytest.raises(PromptError, match="outside the picture"):
        tracker.add(video.frames[0], {1: video.prompts()[1], 2: Prompt.at(999, 1)})


def test_what_is_removed_is_followed_no_longer(model: LiteModel) -> None:
    video = film("crossing")
    tracker = new_tracker(model)
    tracker.add(video.frames[0], video.prompts())
    tracker.remove(1)
    tracker.remove(99)
    assert [region.track_id for region in tracker.step(video.frames[1])] == [2]
    with pytest.raises(VideoError, match=r"Got the track 1; wanted one of \[2\]"):
        tracker.signature(1)
    tracker.remove(2)
    assert tracker.step(video.frames[2]) == []
    assert tracker.add(video.frames[2], {3: Prompt.from_mask(video.masks[0, 2])})[0].track_id == 3


def test_frames_of_another_size_are_refused(model: LiteModel) -> None:
    video = film("straight", 2)
    tracker = new_tracker(model)
    tracker.add(video.frames[0], video.prompts())
    with pytest.raises(VideoError, match="Got a frame of 80x60; wanted 160x120"):
        tracker.step(Frame(1, 0.1, np.zeros((60, 80, 3), np.uint8)))


def test_signatures_are_unit_vectors_that_tell_objects_apart(model: LiteModel) -> None:
    video = film("crossing", 4)
    tracker = new_tracker(model)
    tracker.add(video.frames[0], video.prompts())
    before = [tracker.signature(number) for number in (1, 2)]
    for frame in video.frames[1:]:
        tracker.step(frame)
    after = [tracker.signature(number) for number in (1, 2)]
    for vector in (*before, *after):
        assert vector.dtype == np.float32 and np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert min(before[0] @ after[0], before[1] @ after[1]) > before[0] @ before[1] + 0.2


def test_settings_are_few_and_each_is_documented() -> None:
    settings = [*inspect.signature(LiteTracker).parameters, *inspect.signature(Sort).parameters]
    assert len(settings) <= 20 + 4  # the networks, the reference and SORT itself are no settings
    described = (LiteTracker.__doc__ or "") + (Sort.__doc__ or "")
    assert [name for name in settings if f"        {name}: " not in described] == []


@pytest.mark.parametrize("size", [(1, 1), (2, 90), (33, 47)])
def test_tiny_and_narrow_pictures_of_one_colour_are_followed_without_a_crash(
    model: LiteModel, size: tuple[int, int]
) -> None:
    tracker = new_tracker(model, 64)
    grey = np.full((*size, 3), 128, np.uint8)
    tracker.add(Frame(0, 0.0, grey), {1: Prompt.from_mask(np.ones(size, bool))})
    for index in range(1, 4):
        (region,) = tracker.step(Frame(index, index / 10, grey))
        assert region.mask.array.shape == size
    assert describe(model, tracker.cut(1))[0].endswith(".")


def test_memory_stays_flat(model: LiteModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeping only the last 200 of the 300 frames would take 11 MiB."""
    monkeypatch.setattr(model.recognizer, "detect", lambda picture, parts: ())
    tracker = new_tracker(model, 64)
    video = film("crossing", 4)
    tracker.add(video.frames[0], video.prompts())
    resident = []
    for index in range(1, 300):
        tracker.step(Frame(index, index / 10, video.frames[index % 4].picture.copy()))
        resident.append(psutil.Process().memory_info().rss)
    assert resident[-1] - resident[100] < 10 * 2**20
    assert len(tracker.cut(1).samples) <= SAMPLES


def test_a_clip_begins_with_the_frame_the_last_one_ended_with(model: LiteModel) -> None:
    video = film("straight")
    tracker = new_tracker(model)
    tracker.add(video.frames[0], video.prompts())
    for frame in video.frames[1:6]:
        tracker.step(frame)
    one = tracker.cut(1)
    for frame in video.frames[6:]:
        tracker.step(frame)
    two = tracker.cut(1)
    assert [(clip.track_id, clip.first, clip.last) for clip in (one, two)] == [(1, 0, 5), (1, 5, 11)]
    assert one.motion.direction == two.motion.direction
    assert one.motion.end == two.motion.start
    assert all(" move" in text for text in describe(model, one, two))
    assert all("移动" in text for text in describe(model, one, two, language="zh"))


def test_a_clip_in_which_an_object_is_not_seen_is_described_by_what_was_seen_before(model: LiteModel) -> None:
    video = film("straight", 2)
    mask = video.prompts()[1].mask
    maker = ClipMaker(1, video.frames[0])
    maker.add(video.frames[0], mask, True)
    maker.add_absence(video.frames[1])
    maker.cut()
    clip = maker.cut()
    assert clip.samples == () and len(clip.earlier) == 1 and clip.motion.start is None
    assert describe(model, clip)[0].endswith(" is not seen.")


def test_the_noun_is_chosen_once_from_the_clip_and_the_track_before_it(
    model: LiteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = film("straight")
    tracker = new_tracker(model)
    follow(tracker, video)
    named: list[int] = []
    name_all = model.namer.name_all
    monkeypatch.setattr(model.namer, "name_all", lambda sights: named.append(len(sights)) or name_all(sights))
    clip = tracker.cut(1)
    for frame in video.frames[::-1]:
        tracker.step(frame)
    after = tracker.cut(1)
    describe(model, clip, after)
    assert clip.earlier == () and 1 <= len(after.earlier) <= SAMPLES
    assert named == [len(clip.samples), len(after.samples) + len(after.earlier)]
    assert 2 <= len(clip.samples) <= SAMPLES


def test_samples_of_large_frames_are_shrunk_with_their_masks() -> None:
    mask = np.zeros((900, 1600), bool)
    mask[100:500, 200:1000] = True
    sample = Sample.take(np.zeros((900, 1600, 3), np.uint8), Prompt.from_mask(mask).mask)
    assert sample is not None
    assert sample.picture.shape[:2] == sample.mask.shape == (450, SAMPLE_SIDE)
    assert sample.box == (100, 50, 500, 250)


def test_clips_of_others_and_unknown_languages_are_refused(model: LiteModel) -> None:
    with pytest.raises(UnsupportedError, match="wanted one cut by lite's tracker"):
        describe(model, object())  # type: ignore[arg-type]
    maker = ClipMaker(1, film("straight").frames[0])
    maker.add_absence(film("straight").frames[0])
    with pytest.raises(UnsupportedError, match="cannot answer 'brief' in fr"):
        describe(model, maker.cut(), language="fr")
    assert describe(model) == []
