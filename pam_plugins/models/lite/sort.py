"""SORT: association of detections with tracks by the overlap of boxes and constant velocity.

Bewley et al., "Simple Online and Realtime Tracking" (arXiv 1602.00763). Knows boxes and classes, not pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from pam_core.masks import Box
from pam_plugins.models.lite.geometry import centre, shifted_box
from pam_plugins.models.lite.naming import Detection, box_iou


@dataclass(eq=False)
class Track:
    """One object over time. `box` xyxy is where it is, or is predicted to be; `velocity` (2,) that of its centre, a
    frame. `label` is its class, None where the detector does not know it. `detection` is the box associated with it
    on this frame, if any. `age` counts the frames since it began, `missed` those since its last detection.
    """

    box: Box
    label: str | None
    prompted: bool = False
    velocity: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    detection: Box | None = None
    age: int = 0
    missed: int = 0


class Sort:
    """All tracks, those of prompted objects and those of unprompted detections of the same classes.

    Args:
        iou_threshold: least IoU of a detection with a track's predicted box for an association.
        max_age: frames without a detection after which an unprompted track is dropped.
        velocity_gain: share of the prediction's error that corrects the velocity (the steady-state Kalman gain).
        min_score: least score of a detection that begins a track; less is enough for an association.
    """

    def __init__(
        self, iou_threshold: float = 0.3, max_age: int = 20, velocity_gain: float = 0.3, min_score: float = 0.45
    ) -> None:
        self.iou_threshold = iou_threshold
        self.max_age = max_age
        self.velocity_gain = velocity_gain
        self.min_score = min_score
        self.tracks: list[Track] = []

    def begin(self, box: Box, detections: Sequence[Detection], min_iou: float) -> Track:
        """Begin a prompted object's track; the detection that is the object, if any, gives it its class."""
        best = max(detections, key=lambda one: box_iou(one.box, box), default=None)
        known = best is not None and best.score >= self.min_score and box_iou(best.box, box) >= min_iou
        track = Track(box, best.synset if best and known else None, prompted=True)
        self.tracks.append(track)
        self.merge(track, box)
        return track

    def merge(self, track: Track, box: Box) -> None:
        """Set a prompted object's track to where it was found, in place of an unprompted track there."""
        track.box, track.velocity = box, np.zeros(2)
        self.tracks = [
            one
            for one in self.tracks
            if one.prompted or one.label != track.label or box_iou(one.box, box) < self.iou_threshold
        ]

    def predict(self) -> None:
        """Move every track on to the next frame."""
        for track in self.tracks:
            track.box = shifted_box(track.box, track.velocity)
            track.detection = None
            track.age += 1
            track.missed += 1

    def associate(self, detections: Sequence[Detection]) -> None:
        """Give each track at most one detection of its class; begin tracks of what is left, and drop the old ones."""
        ious = np.array([[self._iou(track, one) for one in detections] for track in self.tracks])
        left = set(range(len(detections)))
        if ious.size:
            for row, column in zip(*linear_sum_assignment(ious, maximize=True), strict=True):
                if ious[row, column] >= self.iou_threshold:
                    self.tracks[row].detection = detections[column].box
                    self.tracks[row].missed = 0
                    self.correct(self.tracks[row], detections[column].box)
                    left.remove(int(column))
        self.tracks = [track for track in self.tracks if track.prompted or track.missed <= self.max_age]
        self.tracks += [
            Track(detections[i].box, detections[i].synset, detection=detections[i].box)
            for i in sorted(left)
            if detections[i].score >= self.min_score
        ]

    def correct(self, track: Track, box: Box) -> None:
        """Set a track to the box measured on this frame, and its velocity closer to what was measured."""
        error = np.subtract(centre(box), centre(track.box))
        track.velocity = track.velocity + self.velocity_gain * error
        track.box = box

    @staticmethod
    def _iou(track: Track, detection: Detection) -> float:
        return box_iou(track.box, detection.box) if track.label == detection.synset else 0.0
