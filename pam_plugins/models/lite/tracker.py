"""Following objects by prompting MobileSAM anew on every frame. No memory network: what is remembered of an object is
its last mask, its motion, and unit vectors of how it looked.

On each frame every object is asked for where its pixels have moved to. Where what the decoder finds there is not like
it, the object is lost: it is looked for near where it went, and where the picture looks most like it, until found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import TYPE_CHECKING

import numpy as np
import torch

from pam_core.errors import VideoError
from pam_core.masks import BoolArray, Box, Mask
from pam_core.types import Prompt, Region
from pam_core.video import Frame
from pam_plugins.models.lite.appearance import FloatArray, View
from pam_plugins.models.lite.clips import ClipMaker, LiteClip
from pam_plugins.models.lite.naming import box_iou
from pam_plugins.models.lite.neighbours import Neighbours
from pam_plugins.models.lite.segmenter import MASK_LOGIT
from pam_plugins.models.lite.track import GIVE_UP, MARGIN, Track, boxed, centre, tight, widened
from pam_plugins.models.lite.video_segmenter import Ask, VideoSegmenter

if TYPE_CHECKING:
    from pam_plugins.models.lite.model import LiteModel

SIDE = 512
"""The long side of the encoder's picture: 1024, as for single pictures, takes five times as long."""

LOSING = 0.2
FINDING = 0.12
"""How much less like itself than usual an object may look and still be followed, or be found again."""

SURENESS = 0.05
"""How much more likeness makes its presence surer by e to 1."""

MIN_OVERLAP = 0.3
"""The IoU with the predicted mask from which on a mask is of the object that is followed."""

MIN_FILLED = 0.4
"""The IoU with the detector's box from which on a mask is of what it sees."""

SIZES = (0.2, 2.5)
"""How large an object that is found again may be, as shares of its usual area."""

OFF = 0.3
MOST_OFF = (1.0, 0.1)
"""What being off the way it went costs a lost object, in roots of its area; how far off it can be, and how much more
for each frame. Later than GIVE_UP frames it can be anywhere.
"""

SAME = 0.6
"""Two objects whose masks overlap by more than this share of the smaller cannot both be there."""

QUALITY_WEIGHT = 0.5
SIZE_WEIGHT = 0.1
WHOLE_LIKENESS = 2.0
"""What likeness counts more where some of it may have come out: that looks more like it, and what hid it does not."""


@dataclass(frozen=True)
class Candidate:
    """A mask an object may have: logits and mask in cells, its looks, the decoder's estimate of its IoU, the
    probability that it is the object, and how good it is among others; None where it cannot be the object.
    """

    logits: FloatArray
    mask: BoolArray
    look: FloatArray
    quality: float
    presence: float
    score: float | None

    def give_up(self, cells: BoolArray) -> None:
        """These are not of it."""
        high, wide = cells.shape
        self.mask[cells] = False
        self.logits[:high, :wide][cells] = -MASK_LOGIT


class LiteTracker:
    """A `Tracker` (pam_core.video). `side`: the long side of the encoder's picture in pixels, a multiple of 64."""

    def __init__(self, model: LiteModel, side: int = SIDE) -> None:
        self.model = model
        self.segmenter = VideoSegmenter(model.segmenter, side)
        self.neighbours = Neighbours()
        self._tracks: dict[int, Track] = {}
        self._clips: dict[int, ClipMaker] = {}
        self._view: View | None = None
        self._index: int | None = None
        self._size: tuple[int, int] | None = None

    def add(self, frame: Frame, prompts: Mapping[int, Prompt]) -> list[Region]:
        """Masks are taken as they are; points and boxes are segmented as in single pictures."""
        size = self._checked(frame)
        for prompt in prompts.values():
            prompt.check(size[1], size[0])
        if not prompts:
            return []
        if self._view is None or self._index != frame.index:
            self._view = self._look(frame)[1]
        regions = []
        boxes: dict[int, Box] = {}
        for (track_id, prompt), found in zip(prompts.items(), self._segment(frame, prompts), strict=True):
            mask = found.mask if found.mask.area else _prompted(prompt, size)
            self._tracks[track_id] = Track.begin(self.segmenter.cells(mask.array), self._view)
            self._clips.setdefault(track_id, ClipMaker(track_id, frame)).see(frame, mask, True)
            boxes[track_id] = mask.box
            regions.append(self._region(track_id, frame, mask, found.predicted_iou, 1.0, prompt))
        self.neighbours.begin(frame.picture, self.model.recognizer.detect(frame.picture, parts=False), boxes)
        return regions

    def _segment(self, frame: Frame, prompts: Mapping[int, Prompt]) -> list[Region]:
        from pam_plugins.models.lite.model import LiteEmbedding

        only_masks = all(not prompt.points and prompt.box is None for prompt in prompts.values())
        features = torch.empty(0) if only_masks else self.model.segmenter.embed(frame.picture)
        embedding = LiteEmbedding(frame.picture, features, ())
        return [found[0] for found in self.model.segment([(embedding, prompt) for prompt in prompts.values()])]

    def step(self, frame: Frame) -> list[Region]:
        self._checked(frame)
        before, self._view = self._view, None
        if not self._tracks or before is None:
            return []
        features, self._view = self._look(frame)
        if self.neighbours.kinds:
            self.neighbours.step(frame.picture, self.model.recognizer.detect(frame.picture, parts=False))
        tracks = dict(sorted(self._tracks.items()))
        near = self._met()
        predicted = {track_id: track.predict(before, self._view) for track_id, track in tracks.items()}
        taken = np.sum(list(predicted.values()), axis=0)
        others = {track_id: taken > predicted[track_id] for track_id in tracks}
        asks = {track_id: self._asks(track_id, predicted[track_id], others[track_id]) for track_id in tracks}
        chosen = _choose(self._candidates(features, asks, predicted, others))
        self._share(chosen)
        return [self._seen(frame, track_id, *chosen[track_id], near=track_id in near) for track_id in tracks]

    def _met(self) -> set[int]:
        """The objects that others which are followed may hide, or be taken for, on the next frame."""
        expected = {track_id: track.expected for track_id, track in self._tracks.items()}
        return {
            one
            for one, other in permutations(self._tracks, 2)
            if (expected[one] & (self._tracks[other].mask if self._tracks[other].seen else expected[other])).any()
        }

    def _asks(self, track_id: int, predicted: BoolArray, others: BoolArray) -> list[Ask]:
        """Where to look for an object: where the detector sees it, or where it must be."""
        assert self._view is not None
        track, sight = self._tracks[track_id], self.neighbours.sight(track_id)
        for box in self._strangers(track_id):
            others = others | boxed(box, others.shape)
        if sight is not None:
            return [track.ask_in(self._in_cells(sight.box), predicted, others, sight.crowded)]
        if self.neighbours.is_hidden(track_id, track.lost_for):
            return track.awaited(others)
        return track.asks(predicted, others, self._view)

    def _strangers(self, track_id: int) -> list[Box]:
        """Where those are, in cells, who are of an object's kind and were not asked for."""
        return [self._in_cells(box) for box in self.neighbours.others(track_id)]

    def _in_cells(self, box: Box) -> Box:
        x, y = self._scale
        return box[0] * x, box[1] * y, box[2] * x, box[3] * y

    def _in_pixels(self, box: Box) -> Box:
        x, y = self._scale
        return box[0] / x, box[1] / y, box[2] / x, box[3] / y

    @property
    def _scale(self) -> tuple[float, float]:
        """Cells to a pixel, across and down."""
        assert self._view is not None and self._size is not None
        return self._view.shape[1] / self._size[1], self._view.shape[0] / self._size[0]

    def _share(self, chosen: Mapping[int, tuple[Candidate | None, float]]) -> None:
        """Where two masks overlap, the one in front has what both claim: the object that looks more like it."""
        assert self._view is not None
        found = [(self._tracks[track_id], best) for track_id, (best, _) in chosen.items() if best is not None]
        for (one, mine), (other, theirs) in combinations(found, 2):
            both = mine.mask & theirs.mask
            if both.any():
                like_one, like_other = (self._view.likeness(track.recent)[both].mean() for track in (one, other))
                (theirs if like_one > like_other else mine).give_up(both)

    def _seen(self, frame: Frame, track_id: int, best: Candidate | None, presence: float, *, near: bool) -> Region:
        """Tell the object what was found of it."""
        size = (frame.picture.shape[0], frame.picture.shape[1])
        track, clip = self._tracks[track_id], self._clips[track_id]
        if best is not None and not best.mask.any():  # another had all of it
            best = None
        full = Mask.from_array(self.segmenter.full_size(best.logits, size) if best else np.zeros(size, bool))
        if best is None or not full.area:
            track.lose(near)
            clip.miss(frame)
            return self._region(track_id, frame, full, 0.0, min(presence, 0.49))
        sight = self.neighbours.sight(track_id)
        assert self._view is not None
        track.see(best.mask, best.look, self._view, crowded=sight is not None and sight.crowded, near=near)
        if sight is None and track.is_whole:
            self.neighbours.found_at(track_id, self._in_pixels(tight(best.mask)))
        clip.see(frame, full, track.is_whole)
        return self._region(track_id, frame, full, best.quality, best.presence)

    def remove(self, track_id: int) -> None:
        self._tracks.pop(track_id, None)
        self._clips.pop(track_id, None)
        self.neighbours.remove(track_id)

    def signature(self, track_id: int) -> FloatArray:
        """What is under its mask: features and colours, (640,). While it is lost, as it was seen last."""
        return self._known(track_id).look

    def cut(self, track_id: int) -> LiteClip:
        self._known(track_id)
        return self._clips[track_id].cut()

    def _known(self, track_id: int) -> Track:
        if track_id not in self._tracks:
            raise VideoError(f"Got the track {track_id}; wanted one of {sorted(self._tracks)}. Add it first.")
        return self._tracks[track_id]

    def _checked(self, frame: Frame) -> tuple[int, int]:
        height, width = frame.picture.shape[:2]
        if self._size not in (None, (height, width)):
            raise VideoError(
                f"Got a frame of {width}x{height}; wanted {self._size[1]}x{self._size[0]} as before. "
                "Scale the frames to one size, or open another tracker."
            )
        self._size = (height, width)
        return self._size

    def _look(self, frame: Frame) -> tuple[torch.Tensor, View]:
        features = self.segmenter.embed(frame.picture)
        size = (frame.picture.shape[0], frame.picture.shape[1])
        self._index = frame.index
        return features, View(frame.picture, features, self.segmenter.shape(size))

    def _candidates(
        self,
        features: torch.Tensor,
        asks: Mapping[int, list[Ask]],
        predicted: Mapping[int, BoolArray],
        others: Mapping[int, BoolArray],
    ) -> dict[int, list[Candidate]]:
        """The masks that each object may have, all from one batch."""
        found: dict[int, list[Candidate]] = {track_id: [] for track_id in asks}
        rows = [(track_id, ask) for track_id, of_one in asks.items() for ask in of_one]
        if not rows:
            return found
        logits, qualities = self.segmenter.decode(features, [ask for _, ask in rows])
        for (track_id, ask), row, of_row in zip(rows, logits, qualities, strict=True):
            # An object whose mask is about known has the decoder's single mask. The three others are often a part or
            # more than it: choosing among all four by any measure made masks shrink or grow from frame to frame.
            sight = self.neighbours.sight(track_id)
            track = self._tracks[track_id]
            many = 1 if track.seen or sight or ask.mask is not None else len(row)
            lacks = track.coming_out(predicted[track_id], others[track_id]) is not None
            whole = track.whole.mask | predicted[track_id] if lacks else None
            for mask, quality in zip(row[:many], of_row[:many], strict=True):
                box = self._in_cells(sight.box) if sight else None
                candidate = self._candidate(track_id, predicted[track_id], whole, box, mask, float(quality))
                if candidate:
                    found[track_id].append(candidate)
        return found

    def _candidate(
        self,
        track_id: int,
        predicted: BoolArray,
        whole: BoolArray | None,
        box: Box | None,
        logits: FloatArray,
        quality: float,
    ) -> Candidate | None:
        """None where the mask is empty. What is beyond the detector's `box` is not of the object it sees. `whole`:
        all that may be seen of it, where more should be than what is `predicted`.
        """
        assert self._view is not None
        track, (high, wide) = self._tracks[track_id], self._view.shape
        if box is not None:
            logits[:high, :wide][~boxed(widened(box, MARGIN), (high, wide))] = -MASK_LOGIT
        mask: BoolArray = logits[:high, :wide] > 0
        area = float(mask.sum())
        if not area:
            return None
        look = self._view.look(mask)
        likeness = track.likeness(look)
        margin = likeness - track.usual + (LOSING if track.seen else FINDING)
        score = likeness + QUALITY_WEIGHT * quality
        if box is not None:
            overlap = box_iou(tight(mask), box)
            possible = overlap >= MIN_FILLED
            score += 1 + overlap
        elif track.seen:
            overlap = float((mask & predicted).sum() / (mask | predicted).sum())
            possible = overlap >= MIN_OVERLAP
            if whole is not None:  # good is what has all that was seen before and nothing that is not of it
                overlap = float((mask & predicted).sum() / predicted.sum() * (mask & whole).sum() / area)
                score += WHOLE_LIKENESS * likeness
            score += 1 + overlap  # before all that is only looked for
        else:
            possible = SIZES[0] < area / track.area < SIZES[1]
            score -= SIZE_WEIGHT * abs(float(np.log(area / track.area)))
            if track.lost_for <= GIVE_UP:
                off = float(np.linalg.norm(np.subtract(centre(tight(mask)), centre(track.box)))) / track.area**0.5
                possible &= off <= MOST_OFF[0] + MOST_OFF[1] * track.lost_for
                score -= OFF * off
        fit = 0.0 if box is None else box_iou(tight(mask), box)
        if any(_is_in(mask, other) and box_iou(tight(mask), other) > fit for other in self._strangers(track_id)):
            possible = False
        presence = 1 / (1 + float(np.exp(-margin / SURENESS)))
        return Candidate(logits, mask, look, quality, presence, score if possible and margin > 0 else None)

    def _region(
        self,
        track_id: int,
        frame: Frame,
        mask: Mask,
        quality: float | None,
        presence: float,
        prompt: Prompt | None = None,
    ) -> Region:
        return Region(
            mask=mask,
            model=self.model.info.ref,
            prompt=prompt,
            predicted_iou=None if quality is None else round(quality, 4),
            presence=round(presence, 4),
            track_id=track_id,
            frame=frame.index,
            time=frame.time,
        )


def _choose(found: Mapping[int, list[Candidate]]) -> dict[int, tuple[Candidate | None, float]]:
    """The best candidate of each object, no two of which are the same thing, and how surely the object is there."""
    ranked = sorted(
        ((candidate.score, track_id, candidate) for track_id, of_one in found.items() for candidate in of_one
         if candidate.score is not None),
        key=lambda entry: -entry[0],
    )  # fmt: skip
    chosen: dict[int, Candidate] = {}
    for _, track_id, candidate in ranked:
        if track_id not in chosen and not any(_same(candidate.mask, other.mask) for other in chosen.values()):
            chosen[track_id] = candidate
    return {
        track_id: (chosen.get(track_id), max((candidate.presence for candidate in of_one), default=0.0))
        for track_id, of_one in found.items()
    }


def _same(a: BoolArray, b: BoolArray) -> bool:
    return bool((a & b).sum() > SAME * min(a.sum(), b.sum()))


def _is_in(mask: BoolArray, box: Box) -> bool:
    return bool((mask & boxed(box, mask.shape)).sum() > SAME * mask.sum())


def _prompted(prompt: Prompt, size: tuple[int, int]) -> Mask:
    """What the prompt itself covers, for want of a mask of it."""
    dense = np.zeros(size, bool)
    if prompt.box is not None:
        x1, y1, x2, y2 = (int(value) for value in prompt.box)
        dense[y1 : y2 + 1, x1 : x2 + 1] = True
    for (x, y), label in zip(prompt.points, prompt.labels, strict=True):
        dense[int(y), int(x)] |= label == 1
    return Mask.from_array(dense)
