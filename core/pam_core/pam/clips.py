"""Clips: one object from one frame to another, as the language model reads it.

A clip is described from at most sixteen frames, the first of them in full detail and the others folded to a quarter
(arXiv 2506.05302, section 3). The frame a clip ends with opens the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pam_core.pam.model import FIRST_FOLD, LATER_FOLD, PamModel

CLIP_FRAMES = 16
"""Frames of a clip that the language model reads, as the released models were trained."""

KEPT_FRAMES = 64
"""Frames of a clip that are kept before it ends; of longer ones every second is dropped, again and again."""


def sample_frames(count: int, most: int = CLIP_FRAMES) -> list[int]:
    """Which of `count` frames a clip is described from: all, or the first and others evenly spread to the last."""
    if count <= most:
        return list(range(count))
    return [0, *np.linspace(1, count - 1, most - 1, dtype=int).tolist()]


@dataclass(frozen=True)
class FrameTokens:
    """One object on one frame for the language model: visual tokens (V, 4C), folded, and semantic tokens (n, C)."""

    index: int
    visual: Tensor
    semantic: Tensor


@dataclass(frozen=True)
class PamClip:
    """A `Clip`. `opening` is the first frame in full detail, `frames` the later ones."""

    track_id: int
    opening: FrameTokens
    frames: tuple[FrameTokens, ...]
    last: int

    @property
    def first(self) -> int:
        return self.opening.index

    def sampled(self, sample: Sequence[int]) -> list[FrameTokens]:
        """The frames with these numbers, counted from the opening one."""
        frames = (self.opening, *self.frames)
        return [frames[number] for number in sample]


@dataclass
class ClipRecorder:
    """A clip while it grows. Its memory does not grow beyond `KEPT_FRAMES`."""

    opening: FrameTokens
    newest: FrameTokens
    frames: list[FrameTokens] = field(default_factory=list)
    stride: int = 1
    count: int = 0

    def add(self, folded: FrameTokens, detailed: FrameTokens) -> None:
        """Add a frame, folded to a quarter, and in full detail in case the next clip opens with it."""
        self.newest, self.count = detailed, self.count + 1
        if self.count % self.stride == 0:
            self.frames.append(folded)
        if len(self.frames) >= KEPT_FRAMES:
            self.frames, self.stride = self.frames[1::2], self.stride * 2


def clip_length(model: PamModel, frames: int) -> int:
    """Tokens of a clip of so many frames; 5,168 of 16."""
    later = frames - 1
    folded = (model.config.vision.grid // LATER_FOLD) ** 2 - (model.config.vision.grid // FIRST_FOLD) ** 2
    return (later + 1) * (model.visual_length + 1) + later * folded


def clip_sequence(model: PamModel, frames: Sequence[FrameTokens]) -> Tensor:
    """A clip's frames as the language model reads them (L, H): a separator stands behind each frame's tokens."""
    separator = model.frame_newline[None]
    parts = [part for f in frames for part in (model.project(f.visual[None], f.semantic[None])[0], separator)]
    return torch.cat(parts)
