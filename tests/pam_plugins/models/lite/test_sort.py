"""SORT: association of detections with tracks, on made-up boxes. No network."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pam_core.masks import Box
from pam_plugins.models.lite.geometry import centre
from pam_plugins.models.lite.naming import Detection
from pam_plugins.models.lite.sort import Sort, Track

PERSON, DOG = "n00007846", "n02084071"


def box_at(x: float, y: float = 50, width: float = 20, height: float = 60) -> Box:
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def person(x: float, score: float = 0.8) -> Detection:
    return Detection(box_at(x), score, PERSON)


def frame(sort: Sort, *detections: Detection) -> None:
    sort.predict()
    sort.associate(detections)


boxes = st.builds(box_at, st.floats(0, 200), st.floats(0, 200), st.floats(1, 80), st.floats(1, 80))
detections = st.lists(st.builds(Detection, boxes, st.floats(0.3, 1), st.sampled_from([PERSON, DOG])), max_size=6)


@given(st.lists(detections, max_size=8))
def test_a_detection_has_one_track_at_most_and_a_track_one_detection_of_its_class(
    frames: list[list[Detection]],
) -> None:
    sort = Sort()
    prompted = sort.begin(box_at(50), [person(50)], 0.65)
    for found in frames:
        frame(sort, *found)
        associated = [(track.detection, track.label) for track in sort.tracks if track.detection]
        remaining = [(one.box, one.synset) for one in found]
        for pair in associated:
            remaining.remove(pair)
        assert all(one.missed <= sort.max_age for one in sort.tracks if not one.prompted)
        assert prompted in sort.tracks


@given(detections)
def test_the_number_of_tracks_is_bounded_by_the_detections_of_the_last_frames(found: list[Detection]) -> None:
    sort = Sort(max_age=2)
    for _ in range(12):
        frame(sort, *found)
    assert len(sort.tracks) <= 3 * len(found)
    for _ in range(3):
        frame(sort)
    assert sort.tracks == []


@given(st.floats(-8, 8), st.floats(-8, 8))
def test_the_velocity_of_steady_motion_is_learned(vx: float, vy: float) -> None:
    sort = Sort()
    track = sort.begin(box_at(100, 100), [], 0.65)
    for step in range(1, 30):
        sort.predict()
        sort.correct(track, box_at(100 + vx * step, 100 + vy * step))
    assert track.velocity == pytest.approx([vx, vy], abs=0.05)
    sort.predict()
    assert centre(track.box) == pytest.approx((100 + vx * 30, 100 + vy * 30), abs=0.1)


def test_an_unprompted_object_does_not_capture_a_prompted_objects_track() -> None:
    """Two of one class walk through each other; on the frames in between the detector has one box for both."""
    sort = Sort()
    track = sort.begin(box_at(60), [person(60)], 0.65)
    for step in range(35):
        one, two = 60 + 4 * step, 200 - 4 * step
        frame(sort, *([person(one), person(two)] if abs(one - two) > 8 else [person((one + two) / 2)]))
    assert track.detection == box_at(60 + 4 * 34)


def test_a_track_takes_no_detection_of_another_class_nor_one_far_away() -> None:
    sort = Sort()
    track = sort.begin(box_at(60), [person(60)], 0.65)
    frame(sort, Detection(box_at(60), 0.9, DOG), person(100))
    assert track.detection is None and track.missed == 1
    assert [one.prompted for one in sort.tracks] == [True, False, False]


def test_only_a_sure_detection_begins_a_track_and_an_unsure_one_continues_it() -> None:
    sort = Sort()
    frame(sort, person(60, score=0.35))
    assert sort.tracks == []
    frame(sort, person(60))
    frame(sort, person(61, score=0.35))
    assert [one.detection for one in sort.tracks] == [box_at(61)]


def test_an_object_has_the_class_of_a_detection_that_fits_it_and_takes_over_its_track() -> None:
    sort = Sort()
    frame(sort, person(60), person(150))
    assert sort.begin(box_at(60), [person(60), person(150)], 0.65).label == PERSON
    assert len(sort.tracks) == 2
    assert sort.begin((55, 20, 65, 30), [person(60)], 0.65).label is None


def test_an_object_found_again_takes_the_place_of_the_track_begun_there() -> None:
    sort = Sort()
    track = sort.begin(box_at(60), [person(60)], 0.65)
    for _ in range(5):
        frame(sort, person(150))
    sort.merge(track, box_at(151))
    assert sort.tracks == [track] and np.array_equal(track.velocity, [0, 0])


def test_tracks_are_compared_by_identity() -> None:
    assert Track(box_at(1), None) != Track(box_at(1), None)
