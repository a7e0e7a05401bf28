"""Track and caption on a real FiftyOne: how a run goes on, fails, reports and refuses."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pam_core.errors import MissingExtraError
from tests.factories import FakePlugin
from tests.fiftyone_plugin.conftest import URI, MakeDataset
from tests.fiftyone_plugin.made_videos import RED, MakeVideos, box, by_track, execute, model_of

if TYPE_CHECKING:
    pass


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


def test_a_missing_package_is_told_before_any_video(
    fake_video: FakePlugin, make_videos: MakeVideos, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    from fiftyone.operators.executor import resolve_type
    from fiftyone.operators.registry import OperatorRegistry

    from fiftyone_plugin.videos import VideoRequest, VideoRun

    dataset = make_videos(1)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pam-plugins\[video\]'"):
        VideoRun(dataset.view(), VideoRequest(model="fake-video", prompt_field="boxes"))
    request = {"dataset_name": dataset.name, "params": {"model": "fake-video", "prompt_field": "boxes"}}
    form = asyncio.run(resolve_type(OperatorRegistry(), f"{URI}/track_and_caption", request)).to_json()
    assert "pam-plugins[video]" in form["type"]["properties"]["misuse"]["view"]["label"]


def test_faults_on_the_way_are_told_beside_the_result(fake_video: FakePlugin, make_videos: MakeVideos) -> None:
    dataset = make_videos(1)
    model_of(fake_video).trouble.steps = frozenset({5})
    assert execute(dataset)["faults"] == 1
    sample = dataset.first()
    assert sample["tracks_run"] and sample["tracks_error"].startswith("1 fault; the first: Nothing could be tracked")
    assert 6 not in by_track(sample)[1] and 7 in by_track(sample)[1]


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
