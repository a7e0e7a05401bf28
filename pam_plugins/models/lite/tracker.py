"""LiteTracker: boxes from SORT, masks from MobileSAM's decoder, prompted anew on every frame. No memory network.

On each frame an object is prompted with a box (the detection associated with it, or where its motion predicts it), a
point inside and its last mask, shifted. Its appearance embedding accepts or rejects what the decoder answers. If that
is rejected the object is lost, and searched for where the frame is most similar to it.

All masks and boxes are in cells (see `video_segmenter`) except those of prompts and regions, which are in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from itertools import combinations

import numpy as np
import torch

from pam_core.errors import VideoError
from pam_core.masks import BoolArray, Box, Mask
from pam_core.types import ModelRef, Prompt, Region
from pam_core.video import Frame
from pam_plugins.models.lite.appearance import FloatArray, FrameAppearance, unit
from pam_plugins.models.lite.clips import ClipMaker, LiteClip
from pam_plugins.models.lite.geometry import (
    box_mask,
    centre,
    deepest_cell,
    mask_iou,
    shifted_box,
    shifted_mask,
    tight_box,
    widened_box,
)
from pam_plugins.models.lite.naming import Detection, box_iou
from pam_plugins.models.lite.recognizer import Recognizer
from pam_plugins.models.lite.segmenter import MASK_LOGIT, Segmenter
from pam_plugins.models.lite.sort import Sort, Track
from pam_plugins.models.lite.tracked_object import MaskCandidate, TrackedObject
from pam_plugins.models.lite.video_segmenter import BoxPrompt, VideoSegmenter


@dataclass(eq=False)
class LiteTracker:
    """A demonstration `Tracker` (pam_core.contracts): short rather than strong.

    It keeps objects that hardly change their appearance, most of those that cross, and about half of those that leave
    the picture or are hidden and come back. It loses thin or ragged objects in front of clutter, and often claims
    something similar while an object is absent. It confuses objects of one appearance that meet, unless the COCO
    detector knows their class. It has no re-identification across scenes and no camera motion compensation.

    Args:
        segmenter: MobileSAM.
        recognizer: its COCO detector is used.
        model: the reference that regions carry.
        side: long side of the encoder's picture in pixels, a multiple of 64; 1024 takes five times as long as 512.
        box_margin: margin of the prompt's box, as a share of the object's sides; without it masks shrink.
        min_iou: least IoU of a mask with the predicted mask, or of its box with the associated detection.
        detection_iou: least IoU of a detection with a prompted object's box for the object to have its class.
        keep_similarity: least similarity of a mask to a tracked object.
        find_similarity: least similarity of a mask to a lost object.
        presence_scale: excess of similarity over its threshold that multiplies the odds of presence by e.
        max_overlap: share of a mask that other prompted objects may take, and IoU that a mask without a detection
            may have with an unprompted object; with more the object is lost.
        occluded_below: share of the object's usual area below which nothing is learned from a mask.
        max_growth: ratio of areas, up or down, between a lost object and a mask of it.
        search_frames: frames for which a lost object is also searched for where its velocity predicts it.
        search_range: distance of a template match from its prediction, as a share of the object's longer side.
        learning_rate: weight of the latest embedding and area in the moving averages.
        sort: association of detections; a new `Sort()` by default.
    """

    segmenter: Segmenter
    recognizer: Recognizer
    model: ModelRef
    _: KW_ONLY
    side: int = 512
    box_margin: float = 0.04
    min_iou: float = 0.3
    detection_iou: float = 0.65
    keep_similarity: float = 0.75
    find_similarity: float = 0.8
    presence_scale: float = 0.05
    max_overlap: float = 0.5
    occluded_below: float = 0.7
    max_growth: float = 2.5
    search_frames: int = 10
    search_range: float = 0.35
    learning_rate: float = 0.1
    sort: Sort = field(default_factory=Sort)

    def __post_init__(self) -> None:
        self.video_segmenter = VideoSegmenter(self.segmenter, self.side)
        self._objects: dict[int, TrackedObject] = {}
        self._clips: dict[int, ClipMaker] = {}
        self._appearance: FrameAppearance | None = None
        self._index: int | None = None
        self._size: tuple[int, int] | None = None

    def add(self, frame: Frame, prompts: Mapping[int, Prompt]) -> list[Region]:
        """Masks are taken as they are; points and boxes are segmented as in single pictures."""
        size = self._check_size(frame)
        for prompt in prompts.values():
            prompt.check(size[1], size[0])
        if not prompts:
            return []
        appearance = self._appearance
        if appearance is None or self._index != frame.index:
            _, appearance = self._embed(frame)
        detections = self._detect(frame, appearance)
        regions = []
        for (track_id, prompt), (mask, predicted_iou) in zip(
            prompts.items(), self._segment(frame, list(prompts.values())), strict=True
        ):
            self._forget(track_id)
            cells = self.video_segmenter.cells(mask.array)
            embedding = appearance.embedding(cells)
            track = self.sort.begin(tight_box(cells), detections, self.detection_iou)
            self._objects[track_id] = TrackedObject(track, cells, embedding, cells, embedding, embedding)
            self._clips.setdefault(track_id, ClipMaker(track_id, frame)).add(frame, mask, True)
            regions.append(self._region(track_id, frame, mask, predicted_iou, 1.0, prompt))
        return regions

    def step(self, frame: Frame) -> list[Region]:
        self._check_size(frame)
        if not self._objects:
            self._appearance = None
            return []
        before, (features, appearance) = self._appearance, self._embed(frame)
        self.sort.predict()
        for one in self._objects.values():
            if before and not one.lost_for:
                self._measure_motion(one, before, appearance)
        labels = {one.track.label for one in self._objects.values()} - {None}
        if labels:
            self.sort.associate([one for one in self._detect(frame, appearance) if one.synset in labels])
        objects = dict(sorted(self._objects.items()))
        prompts = [
            (track_id, prompt) for track_id, one in objects.items() for prompt in self._prompts(one, appearance)
        ]
        candidates: dict[int, list[MaskCandidate]] = {track_id: [] for track_id in objects}
        if prompts:
            logits, ious = self.video_segmenter.decode(features, [prompt for _, prompt in prompts])
            for (track_id, prompt), masks, predicted_ious in zip(prompts, logits, ious, strict=True):
                candidates[track_id] += self._candidates(
                    objects[track_id], appearance, prompt.box, masks, predicted_ious
                )
        chosen = {
            track_id: max(
                (each for each in of_one if self._is_accepted(objects[track_id], each)),
                key=lambda each: each.similarity * each.predicted_iou,
                default=None,
            )
            for track_id, of_one in candidates.items()
        }
        self._separate(chosen, appearance)
        return [self._update(frame, track_id, chosen[track_id], candidates[track_id]) for track_id in objects]

    def remove(self, track_id: int) -> None:
        self._forget(track_id)
        self._clips.pop(track_id, None)

    def signature(self, track_id: int) -> FloatArray:
        """Its appearance embedding (640,) on the latest frame on which it was found."""
        return self._known(track_id).last

    def cut(self, track_id: int) -> LiteClip:
        self._known(track_id)
        return self._clips[track_id].cut()

    def _known(self, track_id: int) -> TrackedObject:
        if track_id not in self._objects:
            raise VideoError(f"Got the track {track_id}; wanted one of {sorted(self._objects)}. Add it first.")
        return self._objects[track_id]

    def _forget(self, track_id: int) -> None:
        known = self._objects.pop(track_id, None)
        if known:
            self.sort.tracks.remove(known.track)
        if not self._objects:
            self.sort.tracks.clear()

    def _check_size(self, frame: Frame) -> tuple[int, int]:
        height, width = frame.picture.shape[:2]
        if self._size not in (None, (height, width)):
            raise VideoError(
                f"Got a frame of {width}x{height}; wanted {self._size[1]}x{self._size[0]} as before. "
                "Scale the frames to one size, or open another tracker."
            )
        self._size = (height, width)
        return self._size

    def _embed(self, frame: Frame) -> tuple[torch.Tensor, FrameAppearance]:
        features = self.video_segmenter.embed(frame.picture)
        height, width = frame.picture.shape[:2]
        self._appearance = FrameAppearance(frame.picture, features, self.video_segmenter.shape((height, width)))
        self._index = frame.index
        return features, self._appearance

    def _detect(self, frame: Frame, appearance: FrameAppearance) -> list[Detection]:
        """The detections on a frame, with boxes in cells."""
        high, wide = appearance.shape
        y, x = high / frame.picture.shape[0], wide / frame.picture.shape[1]
        return [
            Detection((one.box[0] * x, one.box[1] * y, one.box[2] * x, one.box[3] * y), one.score, one.synset)
            for one in self.recognizer.detect(frame.picture, parts=False)
        ]

    def _segment(self, frame: Frame, prompts: Sequence[Prompt]) -> list[tuple[Mask, float | None]]:
        """The mask of each prompt as in a single picture and its predicted IoU, None for a mask that was given."""
        segmenter, size = self.segmenter, (frame.picture.shape[0], frame.picture.shape[1])
        to_segment = [prompt for prompt in prompts if prompt.points or prompt.box]
        found = iter(segmenter.segment(segmenter.embed(frame.picture), size, to_segment) if to_segment else ())
        masks: list[tuple[Mask, float | None]] = []
        for prompt in prompts:
            if prompt.mask and not (prompt.points or prompt.box):
                masks.append((prompt.mask, None))
            else:
                best = next(found)
                dense = best.mask if best.mask.any() else _prompted_pixels(prompt, size)
                masks.append((Mask.from_array(dense), best.predicted_iou))
        return masks

    def _measure_motion(self, one: TrackedObject, before: FrameAppearance, now: FrameAppearance) -> None:
        """Correct the prediction of a track by the motion of the object's pixels."""
        shift = now.motion(before, one.mask, one.track.velocity, self.search_range)
        one.track.box = shifted_box(one.track.box, shift - one.track.velocity)
        one.track.velocity = shift
        one.predicted = shifted_mask(one.mask, shift)

    def _prompts(self, one: TrackedObject, appearance: FrameAppearance) -> list[BoxPrompt]:
        """Where to segment an object: where it is predicted, or, while it is lost, where it may be."""
        track = one.track
        if not one.lost_for:
            if not track.detection and not one.predicted.any():
                return []
            box = track.detection or tight_box(one.predicted)
            inside = one.predicted & box_mask(box, one.mask.shape)
            if not inside.any():
                return [BoxPrompt(widened_box(box, self.box_margin), centre(box))]
            prompts = [BoxPrompt(widened_box(box, self.box_margin), deepest_cell(inside), one.predicted)]
            if not track.detection and one.predicted.sum() < self.occluded_below * one.area:
                whole = widened_box(box, (float(one.area / one.predicted.sum()) ** 0.5 - 1) / 2)
                prompts.append(BoxPrompt(whole, deepest_cell(inside)))
            return prompts
        size = track.box[2] - track.box[0], track.box[3] - track.box[1]
        box, point = appearance.most_similar_box(one.recent, size)
        boxes = [other.detection for other in self._newcomers(one)]
        if track.detection or one.lost_for <= self.search_frames:
            boxes.append(track.box)
        return [
            BoxPrompt(box, point),
            *(BoxPrompt(widened_box(each, self.box_margin), centre(each)) for each in boxes if each),
        ]

    def _newcomers(self, one: TrackedObject) -> list[Track]:
        """Detections of a lost object's class that can be it: their tracks began after it was lost."""
        return [
            other
            for other in self.sort.tracks
            if not other.prompted and other.detection and other.label == one.track.label and other.age < one.lost_for
        ]

    def _candidates(
        self, one: TrackedObject, appearance: FrameAppearance, box: Box, logits: FloatArray, ious: FloatArray
    ) -> list[MaskCandidate]:
        """The decoder's masks (4, cells, cells) for one prompt; of a tracked object the first alone."""
        shape = appearance.shape
        candidates = []
        for mask_logits, iou in zip(logits, ious, strict=True):
            mask_logits[: shape[0], : shape[1]][~box_mask(widened_box(box, self.box_margin), shape)] = -MASK_LOGIT
            mask = mask_logits[: shape[0], : shape[1]] > 0
            if mask.any():
                embedding = appearance.embedding(mask)
                candidates.append(MaskCandidate(mask_logits, mask, embedding, float(iou), one.similarity(embedding)))
            if not one.lost_for:
                break
        return candidates

    def _is_accepted(self, one: TrackedObject, candidate: MaskCandidate) -> bool:
        """Whether a candidate is similar to the object, where it is predicted, and not an unprompted object."""
        box, detection = tight_box(candidate.mask), one.track.detection
        if detection:
            fits = box_iou(box, detection) >= self.min_iou
        elif not one.lost_for:
            fits = mask_iou(candidate.mask, one.predicted) >= self.min_iou
        else:
            fits = 1 / self.max_growth < candidate.mask.sum() / one.area < self.max_growth
        own = box_iou(box, detection) if detection else self.max_overlap
        newcomers = self._newcomers(one)
        others = [each.detection for each in self.sort.tracks if not each.prompted and each not in newcomers]
        fits &= all(box_iou(box, other) <= own for other in others if other)
        return fits and candidate.similarity >= self._threshold(one)

    def _threshold(self, one: TrackedObject) -> float:
        return self.find_similarity if one.lost_for else self.keep_similarity

    def _separate(self, chosen: Mapping[int, MaskCandidate | None], appearance: FrameAppearance) -> None:
        """Give cells that two masks claim to the object that is more similar to them."""
        pairs = [(self._objects[track_id], best) for track_id, best in chosen.items() if best is not None]
        areas = [best.mask.sum() for _, best in pairs]
        for (one, first), (other, second) in combinations(pairs, 2):
            both = first.mask & second.mask
            if both.any():
                similarity = [appearance.similarity_map(o.recent)[both].mean() for o in (one, other)]
                (second if similarity[0] > similarity[1] else first).remove(both)
        for (_, best), area in zip(pairs, areas, strict=True):
            if best.mask.sum() < (1 - self.max_overlap) * area:
                best.remove(best.mask)

    def _update(
        self, frame: Frame, track_id: int, best: MaskCandidate | None, candidates: Iterable[MaskCandidate]
    ) -> Region:
        """Record an object's mask on this frame, or that it is lost."""
        one, clip = self._objects[track_id], self._clips[track_id]
        similarity = best.similarity if best else max((c.similarity for c in candidates), default=0.0)
        presence = 1 / (1 + float(np.exp((self._threshold(one) - similarity) / self.presence_scale)))
        size = frame.picture.shape[:2]
        dense = (
            self.video_segmenter.full_size(best.logits, size) if best and best.mask.any() else np.zeros(size, bool)
        )
        mask = Mask.from_array(dense)
        if best is None or not mask.area:
            one.lost_for += 1
            one.mask = np.zeros_like(one.mask)
            clip.add_absence(frame)
            return self._region(track_id, frame, mask, 0.0, min(presence, 0.49))
        area = float(best.mask.sum())
        box = tight_box(best.mask)
        if one.lost_for:
            self.sort.merge(one.track, box)
        occluded = area < self.occluded_below * one.area
        one.mask, one.last = best.mask, best.embedding
        if not occluded:
            if not one.track.detection and not one.lost_for:
                self.sort.correct(one.track, box)
            one.recent = unit(one.recent + self.learning_rate * (best.embedding - one.recent))
            one.area += self.learning_rate * (area - one.area)
        one.lost_for = 0
        clip.add(frame, mask, not occluded)
        return self._region(track_id, frame, mask, best.predicted_iou, max(presence, 0.5))

    def _region(
        self,
        track_id: int,
        frame: Frame,
        mask: Mask,
        predicted_iou: float | None,
        presence: float,
        prompt: Prompt | None = None,
    ) -> Region:
        return Region(
            mask=mask,
            model=self.model,
            prompt=prompt,
            predicted_iou=None if predicted_iou is None else round(predicted_iou, 4),
            presence=round(presence, 4),
            track_id=track_id,
            frame=frame.index,
            time=frame.time,
        )


def _prompted_pixels(prompt: Prompt, size: tuple[int, int]) -> BoolArray:
    """What the prompt itself covers, for want of a mask of it."""
    dense = np.zeros(size, bool)
    if prompt.box is not None:
        x1, y1, x2, y2 = (int(value) for value in prompt.box)
        dense[y1 : y2 + 1, x1 : x2 + 1] = True
    for (x, y), label in zip(prompt.points, prompt.labels, strict=True):
        dense[int(y), int(x)] |= label == 1
    return dense
