"""Track and caption on a real FiftyOne: what is written on the frames and beside them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.factories import FakePlugin
from tests.fake_video import Square, hidden, steady
from tests.fiftyone_plugin.conftest import URI
from tests.fiftyone_plugin.made_videos import BLUE, RED, MakeVideos, box, by_track, execute
from tests.videos import write_video

if TYPE_CHECKING:
    pass


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
