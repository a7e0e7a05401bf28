"""Track objects through frames with SAM 2, and record what the language model reads of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from pam_core.errors import VideoError
from pam_core.masks import Mask
from pam_core.pam.clips import ClipRecorder, FrameTokens, PamClip
from pam_core.pam.model import FIRST_FOLD, LATER_FOLD, PamModel
from pam_core.pam.prompt_tensors import prompt_batches
from pam_core.pam.tracking import SAM2_RULES, SamTracker, TrackedFrame, TrackingRules
from pam_core.pam.vision import ImageFeatures, full_size, preprocess, stability
from pam_core.types import ModelRef, Prompt, Region
from pam_core.video import Frame


class PamTracker:
    """A `Tracker`. `rules` say where it deviates from SAM 2, as the reference does."""

    def __init__(self, model: PamModel, ref: ModelRef, rules: TrackingRules = SAM2_RULES) -> None:
        self.model, self.ref = model, ref
        self.sam = SamTracker(model.vision, rules)
        self.encoded = 0
        self._clips: dict[int, ClipRecorder] = {}
        self._signatures: dict[int, npt.NDArray[np.float32]] = {}
        self._index: int | None = None
        self._features: ImageFeatures | None = None

    def add(self, frame: Frame, prompts: Mapping[int, Prompt]) -> list[Region]:
        height, width = frame.picture.shape[:2]
        for prompt in prompts.values():
            prompt.check(width, height)
        if self._index is not None and frame.index != self._index:
            raise VideoError(
                f"Got a prompt for frame {frame.index} at frame {self._index}; wanted one for the current frame."
            )
        features = self._encode(frame)
        regions: dict[int, Region] = {}
        known = [track_id for track_id in prompts if track_id in self.sam.objects]
        for track_ids in (known, [track_id for track_id in prompts if track_id not in known]):
            size = self.model.config.vision.image_size
            batches = prompt_batches([prompts[track_id] for track_id in track_ids], width, height, size)
            for rows, tensors in batches:
                tracked = self.sam.prompt(features, [track_ids[row] for row in rows], tensors)
                for track_id, region in zip(tracked.ids, self._regions(frame, tracked), strict=True):
                    prompt = prompts[track_id]
                    given = prompt.mask if not prompt.points and prompt.box is None else None
                    regions[track_id] = replace(region, prompt=prompt, mask=given or region.mask)
        return [regions[track_id] for track_id in prompts]

    def step(self, frame: Frame) -> list[Region]:
        self._index = None
        tracked = self.sam.step(self._encode(frame))
        return self._regions(frame, tracked) if tracked is not None else []

    def remove(self, track_id: int) -> None:
        self.sam.objects.pop(track_id, None)
        self._clips.pop(track_id, None)
        self._signatures.pop(track_id, None)

    def signature(self, track_id: int) -> npt.NDArray[np.float32]:
        return self._signatures[track_id]

    def cut(self, track_id: int) -> PamClip:
        recorder = self._clips[track_id]
        newest = recorder.newest
        self._clips[track_id] = ClipRecorder(newest, newest)
        return PamClip(track_id, recorder.opening, tuple(recorder.frames), newest.index)

    def _encode(self, frame: Frame) -> ImageFeatures:
        """The frame's features, computed once where a frame is stepped to and prompted too."""
        if self._features is None or self._index != frame.index:
            pixels = preprocess(frame.picture, self.model.config.vision.image_size)
            with torch.inference_mode():
                self._features = self.model.vision.encode(pixels[None])
            self.encoded += 1
            self._index = frame.index
        return self._features

    @torch.inference_mode()
    def _regions(self, frame: Frame, tracked: TrackedFrame) -> list[Region]:
        height, width = frame.picture.shape[:2]
        masks = (full_size(tracked.logits, height, width) > 0).cpu().numpy()
        stabilities = stability(tracked.logits[:, 0]).tolist()
        self._record(frame.index, tracked)
        return [
            Region(
                mask=Mask.from_array(masks[row, 0]),
                model=self.ref,
                predicted_iou=float(tracked.decoded.ious[row, 0]),
                stability=stabilities[row],
                presence=float(tracked.presence[row, 0].sigmoid()),
                track_id=track_id,
                frame=frame.index,
                time=frame.time,
            )
            for row, track_id in enumerate(tracked.ids)
        ]

    def _record(self, index: int, tracked: TrackedFrame) -> None:
        cells, semantic = self.model.perceive_cells(tracked.decoded)
        folded = self.model.perceiver.visual_tokens(cells, LATER_FOLD)
        detailed = self.model.perceiver.visual_tokens(cells, FIRST_FOLD)
        for row, track_id in enumerate(tracked.ids):
            self._signatures[track_id] = F.normalize(tracked.pointers[row].float(), dim=0).cpu().numpy()
            newest = FrameTokens(index, detailed[row].clone(), semantic[row])
            recorder = self._clips.get(track_id)
            if recorder is None or recorder.opening.index == index:
                self._clips[track_id] = ClipRecorder(newest, newest)
            elif recorder.newest.index != index:
                recorder.add(FrameTokens(index, folded[row].clone(), semantic[row]), newest)
