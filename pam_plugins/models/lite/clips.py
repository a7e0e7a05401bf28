"""Clips of one tracked object and their captions: one noun, chosen from several frames of the clip and of the track
before it, and the measured motion.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import cv2
import numpy as np

from pam_core.errors import UnsupportedError
from pam_core.masks import BoolArray, Box, Mask
from pam_core.questions import Clip
from pam_core.types import Picture
from pam_core.video import Frame
from pam_plugins.models.lite import motion_captions_en
from pam_plugins.models.lite.captions_zh import Chinese
from pam_plugins.models.lite.facts import Facts, measure
from pam_plugins.models.lite.motion import Motion, MotionRecorder, Observation, Thinned
from pam_plugins.models.lite.motion_captions_zh import describe as describe_zh
from pam_plugins.models.lite.naming import Label, Namer
from pam_plugins.models.lite.recognizer import Recognizer

SAMPLES = 4
"""At most this many frames of a clip are kept to name its object: each takes as long as describing a region."""

SAMPLE_SIDE = 800
"""Frames are kept at most this large, in pixels of their long side."""


@dataclass(frozen=True)
class Sample:
    """One frame of a clip, perhaps shrunk, the object's mask in it (H, W), not empty, and the box around it."""

    picture: Picture
    mask: BoolArray
    box: Box

    @classmethod
    def take(cls, picture: Picture, mask: Mask) -> Sample | None:
        """None where so small an object vanishes by shrinking."""
        dense = mask.array
        scale = SAMPLE_SIDE / max(dense.shape)
        if scale < 1:
            size = max(1, round(dense.shape[1] * scale)), max(1, round(dense.shape[0] * scale))
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            dense = cv2.resize(dense.view(np.uint8), size, interpolation=cv2.INTER_NEAREST).view(np.bool_)
        x, y, width, height = cv2.boundingRect(dense.view(np.uint8))
        return cls(picture, dense, (float(x), float(y), float(x + width), float(y + height))) if width else None


@dataclass(frozen=True)
class LiteClip:
    """A `Clip` (pam_core.questions). `samples` are of the clip, `earlier` of the whole track before it; both are
    empty only where the object was never visible.
    """

    track_id: int
    first: int
    last: int
    samples: tuple[Sample, ...]
    earlier: tuple[Sample, ...]
    motion: Motion


class ClipMaker:
    """Records one object frame by frame and cuts clips of it. Its memory does not grow."""

    def __init__(self, track_id: int, frame: Frame) -> None:
        self.track_id = track_id
        self._size = (frame.picture.shape[0], frame.picture.shape[1])
        self._track: Thinned[Sample] = Thinned(SAMPLES)
        self._begin(frame.index)

    def _begin(self, index: int) -> None:
        self._first = self._last = index
        self._recorder = MotionRecorder(self._size)
        self._samples: Thinned[Sample] = Thinned(SAMPLES)

    def add(self, frame: Frame, mask: Mask, unoccluded: bool) -> None:
        """Record the object on a frame; only while it is `unoccluded` is the frame a sample to name it by."""
        self._last = frame.index
        self._now: Observation | float = Observation(frame.time, mask.box, float(mask.area))
        self._recorder.add(self._now)
        if not unoccluded and self._track.items:
            return
        due = [kept for kept in (self._samples, self._track) if kept.due]
        sample = Sample.take(frame.picture, mask) if due else None
        for kept in (self._samples, self._track):
            if sample is not None and kept in due:
                kept.put(sample)
            else:
                kept.skip()

    def add_absence(self, frame: Frame) -> None:
        self._last, self._now = frame.index, frame.time
        self._recorder.add_absence(frame.time)

    def cut(self) -> LiteClip:
        own = self._samples.items
        earlier = [sample for sample in self._track.items if not any(sample is other for other in own)]
        clip = LiteClip(self.track_id, self._first, self._last, tuple(own), tuple(earlier), self._recorder.motion())
        self._begin(self._last)
        if isinstance(self._now, Observation):
            self._recorder.add(self._now)
        else:
            self._recorder.add_absence(self._now)
        return clip


def describe_clip(clip: Clip, recognizer: Recognizer, namer: Namer, chinese: Chinese) -> dict[str, str]:
    """A sentence about a clip by language code. Raises UnsupportedError."""
    if not isinstance(clip, LiteClip):
        raise UnsupportedError(f"Got a clip of {type(clip).__name__}; wanted one cut by lite's tracker.")
    name, facts = _name(clip, recognizer, namer), _facts(clip)
    return {
        "en": motion_captions_en.describe(name, facts, clip.motion),
        "zh": describe_zh(chinese, name, facts, clip.motion),
    }


def _name(clip: LiteClip, recognizer: Recognizer, namer: Namer) -> Label:
    """The noun that all samples taken together speak for: so a track keeps its name where one clip shows little."""
    samples = (*clip.samples, *clip.earlier)
    if not samples:
        return Label(None, 0.0)
    return namer.name_all(
        [(recognizer.classify(s.picture, [(s.mask, s.box)])[0], s.box, recognizer.detect(s.picture)) for s in samples]
    )


def _facts(clip: LiteClip) -> Facts:
    """The colours that most samples agree on; where the object is, its motion says."""
    samples = clip.samples or clip.earlier
    if not samples:
        return Facts((), 0, 0, 0.0)
    counts = Counter(measure(sample.picture, [sample.mask])[0].colours for sample in samples)
    return Facts(colours=counts.most_common(1)[0][0], row=0, column=0, share=0.0)
