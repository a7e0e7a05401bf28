"""Track and caption on a real FiftyOne: what is written on the frames and beside them, and how a run goes on."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.factories import FakePlugin
from tests.fake_video import FakeSource, FakeVideoModel, Square, hidden, steady
from tests.fiftyone_plugin.conftest import URI, MakeDataset
from tests.videos import write_video

if TYPE_CHECKING:
    import fiftyone as fo

RED = Square("red", steady(8, 8, dx=0.5))
BLUE = Square("blue", steady(40, 28))
MakeVideos = Callable[..., "fo.Dataset"]


@pytest.fixture
def make_videos(tmp_path: Path) -> Iterator[MakeVideos]:
    """`make_videos(2)`: a dataset of videos of 40 frames in which a red and a blue square are seen.

    With `boxes`, frame 1 has a box around each in `boxes`.
    """
    import fiftyone as fo

    made: list[fo.Dataset] = []

    def make(count: int = 2, squares: Sequence[Square] = (RED, BLUE), frames: int = 40, boxes: bool = True) -> Any:
        dataset = fo.Dataset()
        made.append(dataset)
        for number in range(count):
            source = FakeSource(frames, squares)
            pictures = [source.frame(index).picture for index in range(frames)]
            path = write_video(tmp_path / f"{len(made)}_{number}.mp4", pictures)
            sample = fo.Sample(filepath=str(path))
            if boxes:
                sample.frames[1] = fo.Frame(boxes=fo.Detections(detections=[box(square, 0) for square in squares]))
            dataset.add_sample(sample)
        return dataset

    yield make
    for dataset in made:
        if not dataset.deleted:
            dataset.delete()


def box(square: Square, at: int, **attributes: Any) -> Any:
    """A box around a square on the frame `at` (from 0), two pixels wider on each side."""
    import fiftyone as fo

    place = square.path(at)
    assert place is not None
    x, y = place
    bounding_box = [(x - 2) / 64, (y - 2) / 48, (square.side + 4) / 64, (square.side + 4) / 48]
    return fo.Detection(**{"label": square.colour, "bounding_box": bounding_box, **attributes})


def execute(view: Any, **params: Any) -> dict[str, Any]:
    """Run the operator and return what the dataset has on record of the run."""
    import fiftyone.operators as foo

    from fiftyone_plugin.videos import VideoProgress

    context = {"view": view.view(), "params": {"model": "fake-video", "prompt_field": "boxes", **params}}
    foo.execute_operator(f"{URI}/track_and_caption", context)
    view._dataset.reload()
    results = view._dataset.load_run_results(f"pam_{params.get('field', 'tracks')}", cache=False)
    return {each.name: getattr(results, each.name) for each in fields(VideoProgress)}


def by_track(sample: Any, field: str = "tracks") -> dict[int, dict[int, Any]]:
    """The labels of a video by track id and frame number."""
    found: dict[int, dict[int, Any]] = {}
    for number, frame in sample.frames.items():
        for label in frame[field].detections if frame[field] else ():
            found.setdefault(label.index, {})[number] = label
    return found


def model_of(plugin: FakePlugin) -> FakeVideoModel:
    assert isinstance(plugin.model, FakeVideoModel)
    return plugin.model


def test_boxes_on_the_first_frame_become_tracks_with_captions(
    fake_video: FakePlugin, make_videos: MakeVideos
) -> None:
    dataset = make_videos(2)
    done = execute(dataset, languages=["en", "zh"])
    assert {name: done[name] for name in ("done", "perceived", "frames", "tracks", "failed", "faults")} == {
        "done": 2, "perceived": 2, "frames": 80, "tracks": 4, "failed": 0, "faults": 0,
    }  # fmt: skip
    for sample in dataset:
        tracks = by_track(sample)
        assert {index: sorted(labels) for index, labels in tracks.items()} == {
            1: list(range(1, 41)), 2: list(range(1, 41)),
        }  # fmt: skip
        for index, colour in ((1, "red"), (2, "blue")):
            labels = list(tracks[index].values())
            assert {label.label for label in labels} == {colour}
            assert len({label.instance.id for label in labels}) == 1
            assert {label["model"] for label in labels} == {"fake-video 1"}
        assert tracks[1][1].instance.id != tracks[2][1].instance.id
        assert tracks[1][1].get_mask().shape == (8, 8) and tracks[1][1].get_mask().all()
        np.testing.assert_allclose(tracks[2][30].bounding_box, [40 / 64, 28 / 48, 8 / 64, 8 / 48], atol=0.02)
        assert sample["tracks_run"] and sample["tracks_error"] is None and sample["tracks_seconds"] > 0
        assert len(sample.frames[1]["boxes"].detections) == 2, "what else is on a frame stays"
    assert dataset.list_runs() == ["pam_tracks"]
    assert dataset.load_run_results("pam_tracks").frames == 80


def test_events_say_what_the_labels_of_their_frames_say(fake_video: FakePlugin, make_videos: MakeVideos) -> None:
    gone = Square("blue", hidden(steady(40, 28), 20, 60))
    dataset = make_videos(1, [RED, gone], frames=60)
    execute(dataset, languages=["en", "zh"])
    sample = dataset.first()
    tracks, events = by_track(sample), sample["tracks_events"].detections
    blue = [event for event in events if event["index"] == 2]
    assert [event.label for event in blue] == ["blue"] * len(blue) and len(blue) == 2
    assert blue[0].support[0] == 1 and blue[-1].support[1] == 60
    assert all(first.support[1] == second.support[0] for first, second in pairwise(blue))
    for event in events:
        first, last = event.support
        if "caption" in event:
            assert event["caption"].endswith(f"frames {first - 1} to {last - 1}.")
        for number in range(first, last):  # the last frame begins the next event, whose caption it has
            label = tracks[event["index"]].get(number)
            if label is not None:
                assert label["caption"] == event["caption"] and label["caption_zh"] == event["caption_zh"]
    clips = dataset.to_clips("tracks_events")
    assert [clip.support for clip in clips] == [event.support for event in events]
    assert dataset.count_values("tracks_events.detections.caption")
    assert dataset.count_values("frames.tracks.detections.caption")
    assert max(tracks[2]) <= 21, "an object that is not seen has no label"


def test_an_object_is_the_first_label_of_each_index_or_instance(
    fake_video: FakePlugin, make_videos: MakeVideos
) -> None:
    import fiftyone as fo

    dataset = make_videos(1, boxes=False)
    sample = dataset.first()
    instance = fo.Instance()
    sample.frames[3] = fo.Frame(boxes=fo.Detections(detections=[box(RED, 2, index=7)]))
    sample.frames[9] = fo.Frame(
        boxes=fo.Detections(detections=[box(RED, 8, index=7), box(BLUE, 8, instance=instance, label=None)])
    )
    sample.save()
    done = execute(dataset)
    assert done["tracks"] == 2
    tracks = by_track(dataset.first())
    assert (min(tracks[7]), min(tracks[1])) == (3, 9)
    assert {label.label for label in tracks[1].values()} == {"blue"}, "what has no label is named by the model"
    assert {label.instance.id for label in tracks[1].values()} == {instance.id}, "it is the same thing"


def test_without_labels_what_is_in_the_first_frame_is_followed(
    fake_video: FakePlugin, make_videos: MakeVideos
) -> None:
    dataset = make_videos(1, boxes=False)
    done = execute(dataset, prompt_field=None, max_objects=2, field="found")
    assert done["tracks"] == 2
    names = {label.label for labels in by_track(dataset.first(), "found").values() for label in labels.values()}
    assert len(names) == 2 and names <= {"white", "red", "blue"}
    assert {event.label for event in dataset.first()["found_events"].detections} == names


def test_a_finished_video_is_left_alone_and_a_broken_off_one_begun_anew(
    fake_video: FakePlugin, make_videos: MakeVideos
) -> None:
    from fiftyone_plugin import videos
    from fiftyone_plugin.videos import VideoRequest, VideoRun

    dataset = make_videos(2)
    request = VideoRequest(prompt_field="boxes", model="fake-video")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(videos, "WRITE_FRAMES", 5)
        steps = VideoRun(dataset, request).steps()
        for progress in steps:
            if progress.done == 1 and progress.at == 23:
                break
        steps.close()  # in the middle of the second video, as a killed run leaves it
    dataset.reload()
    finished, broken = dataset
    assert finished["tracks_run"] and broken["tracks_run"] is None
    assert len(by_track(broken)[1]) == 20, "frames are saved as they come"
    before = [label.id for label in by_track(finished)[1].values()]
    half_done = {label.id for label in by_track(broken)[1].values()}

    broken.frames[1]["boxes"].detections.pop()  # the second object is not wanted any more
    broken.save()
    last = list(VideoRun(dataset, request).steps())[-1]
    assert (last.perceived, last.skipped, last.frames) == (1, 1, 40)
    dataset.reload()
    finished, broken = dataset
    assert [label.id for label in by_track(finished)[1].values()] == before
    assert {index: len(labels) for index, labels in by_track(broken).items()} == {1: 40}
    assert not half_done & {label.id for label in by_track(broken)[1].values()}
    assert broken["tracks_run"]


KILLED = """
import sys
import fiftyone as fo
from fiftyone_plugin import videos
from fiftyone_plugin.videos import VideoRequest, VideoRun
from pam_plugins.plugins import get_plugins
from tests.factories import FakePlugin
from tests.fake_video import FakeVideoModel, Trouble

videos.WRITE_FRAMES = 5
with get_plugins().registered(FakePlugin(FakeVideoModel(Trouble(seconds=0.1))), "fake"):
    for _ in VideoRun(fo.load_dataset(sys.argv[1]), VideoRequest(prompt_field="boxes", model="fake-video")).steps():
        pass
"""


def test_a_run_that_is_killed_is_gone_on_with(
    host: dict[str, str], fake_video: FakePlugin, make_videos: MakeVideos
) -> None:
    dataset = make_videos(2, frames=60)
    dataset.persistent = True  # or the process would take it along as it dies
    process = subprocess.Popen([sys.executable, "-c", KILLED, dataset.name], env=host)
    deadline = time.monotonic() + 120
    while dataset._frame_collection.count_documents({"tracks": {"$exists": True}}) < 70:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    dataset.reload()
    finished, broken = dataset.values("tracks_run")
    assert finished and broken is None
    half_done = {label.id for labels in by_track(dataset.last()).values() for label in labels.values()}
    before = {label.id for labels in by_track(dataset.first()).values() for label in labels.values()}
    assert half_done

    done = execute(dataset)
    assert (done["perceived"], done["skipped"], done["frames"]) == (1, 1, 60)
    first, last = ([label.id for each in by_track(sample).values() for label in each.values()] for sample in dataset)
    assert set(first) == before and len(last) == 120 and not half_done & set(last)


def test_overwriting_replaces_the_tracks_of_other_runs_only(fake_video: FakePlugin, make_videos: MakeVideos) -> None:
    import fiftyone.operators as foo

    dataset = make_videos(1)
    execute(dataset)
    with pytest.raises(Exception, match="nothing to do"):
        execute(dataset)
    track = foo.get_operator(f"{URI}/track_and_caption")
    assert track(dataset, model="fake-video", prompt_field="boxes", existing="overwrite")["resumed"] == 1
    assert dataset.load_run_results("pam_tracks", cache=False).perceived == 1  # the record of the work stays
    sample = dataset.first()
    sample.frames[1]["boxes"].detections.pop()
    sample.save()
    assert execute(dataset, existing="overwrite")["perceived"] == 1
    assert list(by_track(dataset.first())) == [1]


def test_what_fails_is_recorded_and_the_rest_goes_on(
    fake_video: FakePlugin, make_videos: MakeVideos, tmp_path: Path
) -> None:
    import fiftyone as fo

    dataset = make_videos(1)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    for path in (broken, tmp_path / "missing.mp4"):
        sample = fo.Sample(filepath=str(path))
        sample.frames[1] = fo.Frame(boxes=fo.Detections(detections=[box(RED, 0)]))
        dataset.add_sample(sample)
    outside = dataset.first().copy()
    outside.frames[1]["boxes"] = fo.Detections(detections=[fo.Detection(label="x", bounding_box=[2, 2, 0.5, 0.5])])
    dataset.add_sample(outside)
    done = execute(dataset)
    assert (done["perceived"], done["failed"], done["done"]) == (1, 3, 4)
    errors = dataset.values("tracks_error")
    assert errors[0] is None and "no video" in errors[1] and "no such file" in errors[2] and "area" in errors[3]
    assert [bool(run) for run in dataset.values("tracks_run")] == [True, False, False, False]
    assert execute(dataset)["total"] == 3, "what failed is tried again"


def test_faults_on_the_way_are_told_beside_the_result(fake_video: FakePlugin, make_videos: MakeVideos) -> None:
    dataset = make_videos(1)
    model_of(fake_video).trouble.steps = frozenset({5})
    assert execute(dataset)["faults"] == 1
    sample = dataset.first()
    assert sample["tracks_run"] and sample["tracks_error"].startswith("1 fault; the first: Nothing could be tracked")
    assert 6 not in by_track(sample)[1] and 7 in by_track(sample)[1]


def test_selected_labels_limit_what_is_followed(fake_video: FakePlugin, make_videos: MakeVideos) -> None:
    import fiftyone.operators as foo

    dataset = make_videos(2)
    first = dataset.first()
    blue = first.frames[1]["boxes"].detections[1]
    chosen = {"sample_id": first.id, "label_id": blue.id, "field": "frames.boxes", "frame_number": 1}
    params = {"model": "fake-video", "prompt_field": "boxes"}
    context = {"view": dataset.view(), "selected_labels": [chosen], "params": params}
    foo.execute_operator(f"{URI}/track_and_caption", context)
    dataset.reload()
    assert dataset.distinct("frames.tracks.detections.label") == ["blue"]
    assert [bool(run) for run in dataset.values("tracks_run")] == [True, False]


def test_a_slice_of_a_grouped_dataset_is_tracked(fake_video: FakePlugin, make_videos: MakeVideos) -> None:
    import fiftyone as fo
    import fiftyone.operators as foo

    paths = make_videos(2).values("filepath")
    dataset = fo.Dataset()
    dataset.add_group_field("group", default="left")
    group = fo.Group()
    dataset.add_samples(
        [
            fo.Sample(filepath=path, group=group.element(name))
            for path, name in zip(paths, ("left", "right"), strict=True)
        ]
    )
    with pytest.raises(Exception, match="without a slice"):
        foo.get_operator(f"{URI}/track_and_caption")(dataset, model="fake-video")
    execute(dataset.select_group_slices("right"), prompt_field=None, max_objects=1)
    right = dataset.select_group_slices("right").first()
    assert right["tracks_run"] and list(by_track(right)) == [1] and right["tracks_events"].detections
    assert dataset.select_group_slices("left").first()["tracks_run"] is None
    dataset.delete()


def test_a_view_and_not_its_dataset_is_tracked(fake_video: FakePlugin, make_videos: MakeVideos) -> None:
    dataset = make_videos(3)
    assert execute(dataset[1:2])["total"] == 1
    assert [bool(run) for run in dataset.values("tracks_run")] == [False, True, False]


def test_videos_without_a_label_are_left_as_they_are(fake_video: FakePlugin, make_videos: MakeVideos) -> None:
    dataset = make_videos(2)
    sample = dataset.last()
    sample.frames.clear()
    sample.save()
    done = execute(dataset)
    assert (done["perceived"], done["skipped"]) == (1, 1)


def test_a_delegated_run_tracks_and_keeps_its_progress(fake_video: FakePlugin, make_videos: MakeVideos) -> None:
    import fiftyone.operators as foo
    from fiftyone.operators.delegated import DelegatedOperationService

    dataset = make_videos(2)
    operator = foo.get_operator(f"{URI}/track_and_caption")
    operator(dataset, delegate=True, model="fake-video", prompt_field="boxes")
    service = DelegatedOperationService()
    service.execute_queued_operations(limit=1, log=False)
    operation = service.list_operations(operator=f"{URI}/track_and_caption")[-1]
    assert operation.run_state == "completed", operation.result.error
    assert operation.status.progress == 1.0
    dataset.reload()
    assert dataset.count("frames.tracks.detections") == 160


def test_the_progress_says_how_far_the_video_is(fake_video: FakePlugin, make_videos: MakeVideos) -> None:
    from fiftyone_plugin.videos import VideoRequest, VideoRun

    shares, texts = [], []
    for progress in VideoRun(make_videos(2), VideoRequest(prompt_field="boxes", model="fake-video")).steps():
        shares.append(progress.share)
        texts.append(progress.text())
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(shares) == 83  # one step before the first
    assert texts[10].startswith("video 1 of 2, frame 10 of 40")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"field": "boxes"}, "no run of tracking made"),
        ({"field": "my tracks"}, "wanted a new name"),
        ({"prompt_field": "nothing"}, "frames.boxes"),
        ({"model": "fake"}, "tracks no objects"),
        ({"existing": "append"}, "skip, overwrite"),
        ({"max_objects": 0}, "at least 1"),
        ({"languages": ("de",)}, "no captions in de"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_changed(
    fake_video: FakePlugin, make_videos: MakeVideos, params: dict[str, Any], message: str
) -> None:
    from fiftyone_plugin.videos import VideoRequest, VideoRun
    from pam_plugins.plugins import get_plugins

    dataset = make_videos(1)
    with (
        get_plugins().registered(FakePlugin(), "looks-only"),
        pytest.raises((ValueError, RuntimeError), match=message),
    ):
        VideoRun(dataset, VideoRequest(**{"model": "fake-video", **params}))
    assert dataset.list_runs() == [] and "tracks" not in dataset.get_frame_field_schema()


def test_images_and_clips_are_refused_with_a_sentence(
    fake_video: FakePlugin, make_videos: MakeVideos, make_dataset: MakeDataset
) -> None:
    with pytest.raises(Exception, match="perceive_regions"):
        execute(make_dataset(1), prompt_field=None)
    dataset = make_videos(1)
    execute(dataset)
    with pytest.raises(Exception, match="wanted whole videos"):
        execute(dataset.to_clips("tracks_events"))


def test_the_form_offers_frame_fields_and_models_that_follow(fake_video: FakePlugin, make_videos: MakeVideos) -> None:
    import asyncio

    from fiftyone.operators.executor import resolve_type
    from fiftyone.operators.registry import OperatorRegistry

    dataset = make_videos(1)
    request = {"dataset_name": dataset.name, "params": {"model": "fake-video", "prompt_field": "boxes"}}
    form = asyncio.run(resolve_type(OperatorRegistry(), f"{URI}/track_and_caption", request)).to_json()
    inputs = form["type"]["properties"]
    assert "boxes" in inputs["prompt_field"]["type"]["values"]
    assert "fake-video" in inputs["model"]["type"]["values"] and "fake" not in inputs["model"]["type"]["values"]
    assert "tasks" not in inputs and "misuse" not in inputs
    assert "1 videos" in inputs["estimate"]["view"]["label"]


def test_lite_follows_a_drawn_thing_through_a_made_up_video(tmp_path: Path) -> None:
    """With its real networks: the masks of the labels are those of the thing that was filmed."""
    import fiftyone as fo

    from benchmarks.made_up_videos import DATA, drawn_cut_out, make_video
    from pam_core.media.images import read_picture

    background = read_picture(DATA / "photos" / "mountains.jpg")
    cut_outs = [drawn_cut_out(1, (200, 40, 40)), drawn_cut_out(2, (40, 40, 200))]
    film = make_video("straight", np.random.default_rng(3), cut_outs, background, 24, (320, 240))
    path = write_video(tmp_path / "film.mp4", [frame.picture for frame in film.frames], fps=10)
    rows, columns = np.nonzero(film.masks[0, 0])
    x, y, right, lower = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    around = [x / 320, y / 240, (right - x) / 320, (lower - y) / 240]
    dataset = fo.Dataset()
    sample = fo.Sample(filepath=str(path))
    sample.frames[1] = fo.Frame(boxes=fo.Detections(detections=[fo.Detection(bounding_box=around)]))
    dataset.add_sample(sample)
    execute(dataset, model="lite", languages=["en", "zh"])
    sample = dataset.first()
    (labels,) = by_track(sample).values()
    assert sample["tracks_error"] is None and sorted(labels) == list(range(1, 25))
    for number, label in labels.items():
        seen, left, top = np.zeros((240, 320), bool), *(label.bounding_box[0] * 320, label.bounding_box[1] * 240)
        mask = label.get_mask()
        seen[round(top) : round(top) + mask.shape[0], round(left) : round(left) + mask.shape[1]] = mask
        true = film.masks[0, number - 1]
        assert (seen & true).sum() / (seen | true).sum() > 0.8
        assert label.label and label["label_zh"] and label["caption"] and label["caption_zh"]
    assert {event["caption"] for event in sample["tracks_events"].detections} == {
        label["caption"] for label in labels.values()
    }
    dataset.delete()


def test_masks_of_a_frame_that_are_too_large_for_the_database_go_to_files(
    fake_video: FakePlugin, make_videos: MakeVideos, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fiftyone_plugin import convert

    monkeypatch.setattr(convert, "DOCUMENT_BYTES", 100)  # two masks of 8x8 pixels are larger
    dataset = make_videos(1, frames=3)
    execute(dataset)
    found = [label for each in by_track(dataset.first()).values() for label in each.values()]
    assert len(found) == 6 and len({label.mask_path for label in found}) == 6
    assert all(label.mask is None and label.get_mask().all() for label in found)
