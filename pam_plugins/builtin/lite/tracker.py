"""Following objects by prompting MobileSAM anew on every frame. No memory network: what is remembered of an object is
its last mask, its motion, and two unit vectors of how it looked.

On each frame every object asks where the optical flow says it must be; of the decoder's masks the one is taken that
agrees best with the motion, the decoder's own estimate and the looks. Where none is like it, the object is lost: it
is looked for near where it went, and where the picture looks most like it, until it is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from pam_core.masks import BoolArray, Mask
from pam_core.types import Prompt, Region
from pam_core.video import Frame, VideoError
from pam_plugins.builtin.lite.appearance import FloatArray, View
from pam_plugins.builtin.lite.track import Track, tight, widened
from pam_plugins.builtin.lite.video_segmenter import VideoSegmenter

if TYPE_CHECKING:
    from pam_plugins.builtin.lite.model import LiteModel

SIDE = 512
OVERLAP_WEIGHT = 1.0
QUALITY_WEIGHT = 0.5
LIKENESS_WEIGHT = 3.0
AREA_WEIGHT = 0.5
FIT_WEIGHT = 1.0
SIZE_WEIGHT = 0.5

LOSING = 0.2
FINDING = 0.12
"""How much less like itself than usual an object may look and still be followed, or be found again."""

MIN_OVERLAP = 0.3
SAME = 0.6
"""Two objects whose masks overlap more than this, as a share of the smaller, cannot both be there."""


@dataclass(frozen=True)
class Candidate:
    logits: FloatArray
    mask: BoolArray
    look: FloatArray
    score: float
    quality: float
    presence: float


class LiteTracker:
    """A `Tracker` (pam_core.video)."""

    def __init__(self, model: LiteModel, side: int = SIDE) -> None:
        self.model = model
        self.segmenter = VideoSegmenter(model.segmenter, side)
        self.tracks: dict[int, Track] = {}
        self.view: View | None = None
        self._flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def add(self, frame: Frame, prompts: Mapping[int, Prompt]) -> list[Region]:
        size = frame.picture.shape[:2]
        for prompt in prompts.values():
            prompt.check(size[1], size[0])
        features = self.segmenter.embed(frame.picture)
        self.view = View(frame.picture, features, self.segmenter.shape(size))
        regions = []
        for track_id, prompt in prompts.items():
            mask = prompt.mask.array
            self.tracks[track_id] = Track.begin(self.segmenter.cells(mask), self.view)
            regions.append(self._region(track_id, frame, Mask.from_array(mask), 1.0, 1.0))
        return regions

    def step(self, frame: Frame) -> list[Region]:
        size = frame.picture.shape[:2]
        features = self.segmenter.embed(frame.picture)
        before, view = self.view, View(frame.picture, features, self.segmenter.shape(size))
        self.view = view
        flow = self._flow.calc(before.grey, view.grey, None)
        predicted = {track_id: track.predict(flow) for track_id, track in self.tracks.items()}
        asks = {}
        for track_id, track in self.tracks.items():
            others = np.zeros(view.shape, bool)
            for other, mask in predicted.items():
                if other != track_id:
                    others |= mask
            asks[track_id] = track.asks(predicted[track_id], others, view)
        rows = [ask for of_one in asks.values() for ask in of_one]
        found = {}
        if rows:
            logits, ious = self.segmenter.decode(features, rows)
            start = 0
            for track_id, of_one in asks.items():
                end = start + len(of_one)
                found[track_id] = self._candidates(
                    self.tracks[track_id], predicted[track_id],
                    logits[start:end].reshape(-1, *logits.shape[2:]), ious[start:end].ravel(), view,
                )
                start = end
        chosen = self._choose(found)
        regions = []
        for track_id, track in sorted(self.tracks.items()):
            best = chosen.get(track_id)
            if best is None:
                track.lose()
                presence = max((c.presence for c in found.get(track_id, [])), default=0.0)
                regions.append(self._region(track_id, frame, Mask.from_array(np.zeros(size, bool)), 0.0, min(presence, .49)))
                continue
            track.see(best.mask, best.look)
            full = self.segmenter.full_size(best.logits, size)
            regions.append(self._region(track_id, frame, Mask.from_array(full), best.quality, best.presence))
        return regions

    def _candidates(self, track, predicted, logits, ious, view) -> list[Candidate]:
        high, wide = view.shape
        out = []
        alike_map = view.likeness(track.first)
        for one, quality in zip(logits, ious):
            mask = one[:high, :wide] > 0
            area = mask.sum()
            if area == 0:
                continue
            look = view.look(mask)
            alike = track.likeness(look)
            margin = alike - track.usual
            x1, y1, x2, y2 = (max(0, round(v)) for v in widened(tight(mask | predicted), 0.2))
            p, c = alike_map[y1:y2, x1:x2], mask[y1:y2, x1:x2]
            fit = p[c].sum() / (c.sum() + p[~c].sum())
            if track.seen:
                overlap = (mask & predicted).sum() / (mask | predicted).sum()
                ok = overlap >= MIN_OVERLAP and margin > -LOSING
                score = OVERLAP_WEIGHT * overlap + QUALITY_WEIGHT * quality + LIKENESS_WEIGHT * alike + FIT_WEIGHT * fit - AREA_WEIGHT * abs(np.log(area / max(1, predicted.sum()))) - SIZE_WEIGHT * max(0, np.log(area / track.area))
            else:
                ratio = area / track.area
                ok = 0.2 < ratio < 2.5 and margin > -FINDING
                score = alike + FIT_WEIGHT * fit + QUALITY_WEIGHT * quality - 0.1 * abs(np.log(ratio))
            presence = 1 / (1 + np.exp(-(margin + (LOSING if track.seen else FINDING)) / 0.05))
            out.append(Candidate(one, mask, look, float(score) if ok else -1.0, float(quality), float(presence)))
        return sorted(out, key=lambda c: -c.score)

    def _choose(self, found):
        chosen = {}
        order = sorted(((c.score, tid, i) for tid, cs in found.items() for i, c in enumerate(cs) if c.score > 0), reverse=True)
        for _, tid, i in order:
            if tid in chosen: continue
            mask = found[tid][i].mask
            if any((mask & o.mask).sum() > SAME * min(mask.sum(), o.mask.sum()) for o in chosen.values()):
                continue
            chosen[tid] = found[tid][i]
        return chosen

    def _region(self, track_id, frame, mask, quality, presence):
        return Region(mask=mask, model=self.model.info.ref, predicted_iou=round(quality, 4), presence=round(presence, 4),
                      track_id=track_id, frame=frame.index, time=frame.time)
