"""LiteTracker: boxes from SORT, masks from MobileSAM's decoder, prompted anew on every frame. No memory network.

On each frame an object is prompted with a box (the detection associated with it, or where its velocity predicts it), a
point inside and its last mask, shifted. Its appearance embedding accepts or rejects what the decoder answers. Where it
is rejected the object is lost, and searched for where the frame is most similar to it until it is found again.

All masks and boxes are in cells (see `video_segmenter`) except those of prompts and regions, which are in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
import numpy.typing as npt

from pam_core.contracts import ModelRef
from pam_core.masks import BoolArray, Box, Mask
from pam_core.types import Prompt, Region
from pam_core.video import Frame, VideoError
from pam_plugins.models.lite.appearance import FloatArray, FrameAppearance, unit
from pam_plugins.models.lite.clips import ClipMaker, LiteClip
from pam_plugins.models.lite.naming import Detection, box_iou
from pam_plugins.models.lite.recognizer import Recognizer
from pam_plugins.models.lite.segmenter import MASK_LOGIT, Segmenter
from pam_plugins.models.lite.sort import Sort, Track, centre, shifted_box
from pam_plugins.models.lite.video_segmenter import BoxPrompt, VideoSegmenter


@dataclass
class TrackedObject:
    """A prompted object. `mask` is empty while it is lost. `first`, `recent` and `last` are its embeddings: on its
    first frame, their moving average, and the latest. `area` is that of the whole object, a moving average.
    """

    track: Track
    mask: BoolArray
    first: FloatArray
    recent: FloatArray
    last: FloatArray
    area: float
    predicted: BoolArray
    lost_for: int = 0

    def similarity(self, embedding: FloatArray) -> float:
        """The similarity of an embedding to this object, in [0, 1]: to its first appearance, and to its recent one."""
        return float(embedding @ (self.first + self.recent)) / 2


@dataclass
class Candidate:
    """A mask that the decoder gave for an object: logits, mask in cells, its embedding and predicted IoU, and the
    similarity to the object.
    """

    logits: FloatArray
    mask: BoolArray
    embedding: FloatArray
    predicted_iou: float
    similarity: float

    def remove(self, cells: BoolArray) -> None:
        high, wide = cells.shape
        self.mask[cells] = False
        self.logits[:high, :wide][cells] = -MASK_LOGIT


class LiteTracker:
    """A demonstration `Tracker` (pam_core.video): short rather than strong.

    It keeps objects that move smoothly and keep their appearance, through short occlusions and absences. It loses thin
    or ragged objects in front of clutter, objects that are half hidden for long, and what moves by more than its own
    size between two frames; it does not tell apart objects of one appearance that meet, unless the COCO detector
    knows their class. It does no re-identification across scenes and no camera motion compensation.

    Args:
        segmenter: MobileSAM.
        recognizer: the COCO detector is used of it.
        model: the reference that regions carry.
        side: long side of the encoder's picture in pixels, a multiple of 64; 1024 takes five times as long as 512.
        box_margin: how much wider than the object the prompt's box is, as a share of its sides; without it masks shrink.
        min_iou: least IoU of a mask with the predicted mask, or of its box with the associated detection.
        detection_iou: least IoU of a detection with a prompted object's box for the object to have its class.
        keep_similarity: least similarity of a mask to a tracked object.
        find_similarity: the same for a lost object.
        presence_scale: excess of similarity over its threshold by which the odds of presence grow e-fold.
        max_overlap: share of a mask that other objects may claim; with more the object is hidden behind them.
        occluded_below: share of the object's area below which it is partly hidden: nothing is learned from its mask.
        max_growth: ratio to the object's area, up or down, of a mask that can be a lost object.
        search_frames: frames for which a lost object is searched for at its predicted position too.
        learning_rate: weight of the latest embedding and area in the moving averages.
        sort: association of detections; a new `Sort()` by default.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        recognizer: Recognizer,
        model: ModelRef,
        *,
        side: int = 512,
        box_margin: float = 0.04,
        min_iou: float = 0.3,
        detection_iou: float = 0.65,
        keep_similarity: float = 0.65,
        find_similarity: float = 0.75,
        presence_scale: float = 0.05,
        max_overlap: float = 0.5,
        occluded_below: float = 0.7,
        max_growth: float = 2.5,
        search_frames: int = 10,
        search_range: float = 0.35,
        learning_rate: float = 0.1,
        sort: Sort | None = None,
    ) -> None:
        self.segmenter = VideoSegmenter(segmenter, side)
        self.recognizer = recognizer
        self.model = model
        self.box_margin = box_margin
        self.min_iou = min_iou
        self.detection_iou = detection_iou
        self.keep_similarity = keep_similarity
        self.find_similarity = find_similarity
        self.presence_scale = presence_scale
        self.max_overlap = max_overlap
        self.occluded_below = occluded_below
        self.max_growth = max_growth
        self.search_frames = search_frames
        self.search_range = search_range
        self.learning_rate = learning_rate
        self.sort = sort or Sort()
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
        if self._appearance is None or self._index != frame.index:
            self._embed(frame)
        assert self._appearance is not None
        detections = self._detect(frame)
        regions = []
        for (track_id, prompt), (mask, predicted_iou) in zip(
            prompts.items(), self._segment(frame, list(prompts.values())), strict=True
        ):
            self._forget(track_id)
            cells = self.segmenter.cells(mask.array)
            embedding = self._appearance.embedding(cells)
            track = self.sort.begin(tight_box(cells), detections, self.detection_iou)
            self._objects[track_id] = TrackedObject(track, cells, embedding, embedding, embedding, float(cells.sum()), cells)
            self._clips.setdefault(track_id, ClipMaker(track_id, frame)).see(frame, mask, True)
            regions.append(self._region(track_id, frame, mask, predicted_iou, 1.0, prompt))
        return regions

    def step(self, frame: Frame) -> list[Region]:
        self._check_size(frame)
        if not self._objects:
            self._appearance = None
            return []
        before = self._appearance
        features = self._embed(frame)
        self.sort.predict()
        for one in self._objects.values():
            one.predicted = one.mask
            if not one.lost_for:
                shift = one.track.velocity
                if before:
                    shift = self._appearance.motion(before, one.mask, shift, self.search_range)
                    one.track.box = shifted_box(one.track.box, shift - one.track.velocity)
                    one.track.velocity = shift
                one.predicted = _shifted(one.mask, shift)
        labels = {one.track.label for one in self._objects.values()} - {None}
        if labels:
            self.sort.associate([one for one in self._detect(frame) if one.synset in labels])
        objects = dict(sorted(self._objects.items()))
        prompts = [(track_id, prompt) for track_id, one in objects.items() for prompt in self._prompts(one)]
        candidates: dict[int, list[Candidate]] = {track_id: [] for track_id in objects}
        if prompts:
            logits, ious = self.segmenter.decode(features, [prompt for _, prompt in prompts])
            for (track_id, prompt), masks, predicted_ious in zip(prompts, logits, ious, strict=True):
                candidates[track_id] += self._candidates(objects[track_id], prompt, masks, predicted_ious)
        chosen = {
            track_id: max(self._accepted(objects[track_id], of_one), key=_quality, default=None)
            for track_id, of_one in candidates.items()
        }
        self._separate(chosen)
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

    def _embed(self, frame: Frame):
        features = self.segmenter.embed(frame.picture)
        self._appearance = FrameAppearance(frame.picture, features, self.segmenter.shape(frame.picture.shape[:2]))
        self._index = frame.index
        return features

    def _detect(self, frame: Frame) -> list[Detection]:
        """The detections on a frame, with boxes in cells."""
        high, wide = self._appearance.shape
        y, x = high / frame.picture.shape[0], wide / frame.picture.shape[1]
        return [
            Detection((one.box[0] * x, one.box[1] * y, one.box[2] * x, one.box[3] * y), one.score, one.synset)
            for one in self.recognizer.detect(frame.picture, parts=False)
        ]

    def _segment(self, frame: Frame, prompts: list[Prompt]) -> list[tuple[Mask, float | None]]:
        """The mask of each prompt of a single picture and its predicted IoU, None for a mask that was given."""
        plain = [prompt for prompt in prompts if prompt.points or prompt.box]
        segmenter, size = self.segmenter.segmenter, frame.picture.shape[:2]
        found = iter(segmenter.segment(segmenter.embed(frame.picture), size, plain) if plain else ())
        answers = []
        for prompt in prompts:
            if prompt.mask and not (prompt.points or prompt.box):
                answers.append((prompt.mask, None))
                continue
            best = next(found)[0]
            mask = Mask.from_array(best.mask if best.mask.any() else _prompted_pixels(prompt, size))
            answers.append((mask, best.predicted_iou))
        return answers

    def _prompts(self, one: TrackedObject) -> list[BoxPrompt]:
        """Where to segment an object: where it is predicted, or, while it is lost, where it may be."""
        track, shape = one.track, one.mask.shape
        if not one.lost_for:
            predicted = one.predicted
            box = track.detection or (tight_box(predicted) if predicted.any() else None)
            if box is None:
                return []
            inside = predicted & box_mask(box, shape)
            point = deepest(inside) if inside.any() else centre(box)
            return [BoxPrompt(self._widened(box), point, predicted if inside.any() else None)]
        size = track.box[2] - track.box[0], track.box[3] - track.box[1]
        box, point = self._appearance.most_similar_box(one.recent, size)
        boxes = [one.detection for one in self._newcomers(one)]
        if track.detection:
            boxes.append(track.detection)
        elif one.lost_for <= self.search_frames:
            boxes.append(track.box)
        return [BoxPrompt(box, point), *(BoxPrompt(self._widened(box), centre(box)) for box in boxes)]

    def _newcomers(self, one: TrackedObject) -> list[Track]:
        """Detections of a lost object's class that can be it: their tracks began after it was lost."""
        return [
            other
            for other in self.sort.tracks
            if not other.prompted and other.detection and other.label == one.track.label and other.age < one.lost_for
        ]

    def _candidates(
        self, one: TrackedObject, prompt: BoxPrompt, logits: FloatArray, ious: FloatArray
    ) -> list[Candidate]:
        """The masks (4, cells, cells) of one prompt. A prompt with a mask is not ambiguous: the first mask is its."""
        high, wide = one.mask.shape
        count = 1 if not one.lost_for else len(logits)
        candidates = []
        for mask_logits, iou in zip(logits[:count], ious[:count], strict=True):
            mask_logits[:high, :wide][~box_mask(self._widened(prompt.box), (high, wide))] = -MASK_LOGIT
            mask = mask_logits[:high, :wide] > 0
            if mask.any():
                embedding = self._appearance.embedding(mask)
                candidates.append(Candidate(mask_logits, mask, embedding, float(iou), one.similarity(embedding)))
        return candidates

    def _accepted(self, one: TrackedObject, candidates: Iterable[Candidate]) -> list[Candidate]:
        """The candidates that can be the object."""
        threshold = self.find_similarity if one.lost_for else self.keep_similarity
        newcomers = self._newcomers(one)
        others = [t.detection for t in self.sort.tracks if not t.prompted and t.detection and t not in newcomers]
        accepted = []
        for candidate in candidates:
            box = tight_box(candidate.mask)
            if one.track.detection:
                possible = box_iou(box, one.track.detection) >= self.min_iou
            elif not one.lost_for:
                possible = mask_iou(candidate.mask, one.predicted) >= self.min_iou
            else:
                possible = 1 / self.max_growth < candidate.mask.sum() / one.area < self.max_growth
            own = box_iou(box, one.track.detection) if one.track.detection else self.max_overlap
            possible &= all(box_iou(box, other) <= own for other in others)
            if possible and candidate.similarity >= threshold:
                accepted.append(candidate)
        return accepted

    def _separate(self, chosen: Mapping[int, Candidate | None]) -> None:
        """Give cells that two masks claim to the object that is more similar to them."""
        pairs = [(self._objects[track_id], best) for track_id, best in chosen.items() if best is not None]
        areas = [best.mask.sum() for _, best in pairs]
        for (one, first), (other, second) in combinations(pairs, 2):
            both = first.mask & second.mask
            if both.any():
                similarity = [self._appearance.similarity_map(o.recent)[both].mean() for o in (one, other)]
                (second if similarity[0] > similarity[1] else first).remove(both)
        for (_, best), area in zip(pairs, areas, strict=True):
            if best.mask.sum() < (1 - self.max_overlap) * area:
                best.remove(best.mask)

    def _update(self, frame: Frame, track_id: int, best: Candidate | None, candidates: Iterable[Candidate]) -> Region:
        """Record an object's mask on this frame, or that it is lost."""
        one, clip = self._objects[track_id], self._clips[track_id]
        threshold = self.find_similarity if one.lost_for else self.keep_similarity
        similarity = best.similarity if best else max((c.similarity for c in candidates), default=0.0)
        presence = 1 / (1 + float(np.exp((threshold - similarity) / self.presence_scale)))
        size = frame.picture.shape[:2]
        dense = self.segmenter.full_size(best.logits, size) if best and best.mask.any() else np.zeros(size, bool)
        mask = Mask.from_array(dense)
        if best is None or not mask.area:
            one.lost_for += 1
            one.mask = np.zeros_like(one.mask)
            clip.miss(frame)
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
        clip.see(frame, mask, not occluded)
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

    def _widened(self, box: Box) -> Box:
        x, y = self.box_margin * (box[2] - box[0]), self.box_margin * (box[3] - box[1])
        return (box[0] - x, box[1] - y, box[2] + x, box[3] + y)


def _quality(candidate: Candidate) -> float:
    return candidate.similarity + 0.5 * candidate.predicted_iou


def tight_box(mask: BoolArray) -> Box:
    """The box around the set cells, of which there is at least one."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return (float(x), float(y), float(x + width), float(y + height))


def box_mask(box: Box, shape: tuple[int, ...]) -> BoolArray:
    """The cells of a box, at least one of those in the picture, as a mask (H, W)."""
    mask = np.zeros(shape, bool)
    x1, y1, x2, y2 = (max(0, round(value)) for value in box)
    mask[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)] = True
    return mask


def mask_iou(a: BoolArray, b: BoolArray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def deepest(mask: BoolArray) -> tuple[float, float]:
    """The cell farthest from the edge of a mask (x, y)."""
    padded = np.pad(mask.view(np.uint8), 1)
    y, x = np.unravel_index(int(cv2.distanceTransform(padded, cv2.DIST_L2, 3).argmax()), padded.shape)
    return float(x - 1), float(y - 1)


def _shifted(mask: BoolArray, shift: npt.NDArray[np.float64]) -> BoolArray:
    """A mask moved by some cells (x, y)."""
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float64)
    moved: BoolArray = cv2.warpAffine(mask.astype(np.float32), matrix, mask.shape[::-1]) > 0.5
    return moved


def _prompted_pixels(prompt: Prompt, size: tuple[int, int]) -> BoolArray:
    """What the prompt itself covers, for want of a mask of it."""
    dense = np.zeros(size, bool)
    if prompt.box is not None:
        x1, y1, x2, y2 = (int(value) for value in prompt.box)
        dense[y1 : y2 + 1, x1 : x2 + 1] = True
    for (x, y), label in zip(prompt.points, prompt.labels, strict=True):
        dense[int(y), int(x)] |= label == 1
    return dense
