"""PAM on videos: objects followed by SAM 2, and a caption of what each did from one frame to another.

A clip is described from at most sixteen frames, the first of them in full detail and the others folded to a quarter
(arXiv 2506.05302, section 3). The frame a clip ends with opens the next one. Implements `Tracker` and `VideoModel`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from pam_core.contracts import ModelInfo
from pam_core.errors import VideoError
from pam_core.masks import Mask
from pam_core.pam.generation import Branch, generate
from pam_core.pam.image_model import AFTER_IMAGE, DEFAULT_BUDGET, PamImageModel
from pam_core.pam.model import FIRST_FOLD, LATER_FOLD, PamModel
from pam_core.pam.prompt_tensors import prompt_batches
from pam_core.pam.tracking import SAM2_RULES, SamTracker, TrackedFrame, TrackingRules
from pam_core.pam.vision import ImageFeatures, full_size, preprocess, stability
from pam_core.questions import Generation
from pam_core.tasks import NO_HISTORY, VIDEO_QUESTIONS
from pam_core.types import Prompt, Region, language_codes
from pam_core.video import Frame

CLIP_FRAMES = 16
"""Frames of a clip that the language model sees, as the released models were trained."""

KEPT_FRAMES = 64
"""Frames of a clip that are kept before it ends; of longer ones every second is let go, again and again."""


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
    """What was seen of an object. `opening` is the first frame in full detail."""

    track_id: int
    opening: FrameTokens
    frames: tuple[FrameTokens, ...]
    last: int

    @property
    def first(self) -> int:
        return self.opening.index


@dataclass
class _ClipRecorder:
    """A clip while it grows."""

    opening: FrameTokens
    newest: FrameTokens
    frames: list[FrameTokens] = field(default_factory=list)
    stride: int = 1
    count: int = 0

    def add(self, frame: FrameTokens, detailed: FrameTokens) -> None:
        self.newest, self.count = detailed, self.count + 1
        if self.count % self.stride == 0:
            self.frames.append(frame)
        if len(self.frames) >= KEPT_FRAMES:
            self.frames, self.stride = self.frames[1::2], self.stride * 2


class PamTracker:
    """A `Tracker`. With `rules`, it follows the reference where that deviates from SAM 2."""

    def __init__(self, pam: PamImageModel, rules: TrackingRules = SAM2_RULES) -> None:
        self.pam = pam
        self.sam = SamTracker(pam.model.vision, rules)
        self._clips: dict[int, _ClipRecorder] = {}
        self._signatures: dict[int, npt.NDArray[np.float32]] = {}
        self._frame: Frame | None = None
        self._features: ImageFeatures | None = None

    def add(self, frame: Frame, prompts: Mapping[int, Prompt]) -> list[Region]:
        height, width = frame.picture.shape[:2]
        for prompt in prompts.values():
            prompt.check(width, height)
        if self._frame is not None and frame.index != self._frame.index:
            raise VideoError(
                f"Got a prompt for frame {frame.index}, looking at frame {self._frame.index}; wanted the same."
            )
        features = self._look(frame)
        found: dict[int, Region] = {}
        known = [number for number in prompts if number in self.sam.objects]
        for numbers in (known, [number for number in prompts if number not in known]):
            given = [prompts[number] for number in numbers]
            size = self.pam.model.config.vision.image_size
            for rows, tensors in prompt_batches(given, width, height, size):
                ids = [numbers[row] for row in rows]
                looked = self.sam.prompt(features, ids, tensors)
                for region in self._regions(frame, looked):
                    prompt = prompts[region.track_id or 0]
                    alone = prompt.mask if not prompt.points and prompt.box is None else None
                    found[region.track_id or 0] = replace(region, prompt=prompt, mask=alone or region.mask)
        return [found[number] for number in prompts]

    def step(self, frame: Frame) -> list[Region]:
        self._frame = None
        looked = self.sam.follow(self._look(frame))
        return self._regions(frame, looked) if looked is not None else []

    def remove(self, track_id: int) -> None:
        self.sam.objects.pop(track_id, None)
        self._clips.pop(track_id, None)
        self._signatures.pop(track_id, None)

    def signature(self, track_id: int) -> npt.NDArray[np.float32]:
        return self._signatures[track_id]

    def cut(self, track_id: int) -> PamClip:
        recorded = self._clips[track_id]
        newest = recorded.newest
        self._clips[track_id] = _ClipRecorder(newest, newest)
        return PamClip(track_id, recorded.opening, tuple(recorded.frames), newest.index)

    def _look(self, frame: Frame) -> ImageFeatures:
        """The frame's features; computed once where a frame is stepped to and prompted too."""
        if self._features is None or self._frame is None or self._frame.index != frame.index:
            pixels = preprocess(frame.picture, self.pam.model.config.vision.image_size)
            with torch.inference_mode():
                self._features = self.pam.model.vision.encode(pixels[None])
            self.pam.work.encoded += 1
            self._frame = replace(frame, picture=frame.picture[:0])  # the picture itself is not needed any more
        return self._features

    @torch.inference_mode()
    def _regions(self, frame: Frame, looked: TrackedFrame) -> list[Region]:
        height, width = frame.picture.shape[:2]
        masks = (full_size(looked.logits, height, width) > 0).cpu().numpy()
        stable = stability(looked.logits[:, 0]).tolist()
        self._record(frame.index, looked)
        return [
            Region(
                mask=Mask.from_array(masks[row, 0]),
                model=self.pam.info.ref,
                predicted_iou=float(looked.decoded.ious[row, 0]),
                stability=stable[row],
                presence=float(looked.presence[row, 0].sigmoid()),
                track_id=number,
                frame=frame.index,
                time=frame.time,
            )
            for row, number in enumerate(looked.ids)
        ]

    def _record(self, index: int, looked: TrackedFrame) -> None:
        cells, semantic = self.pam.model.perceive_cells(looked.decoded)
        folded = self.pam.model.perceiver.visual_tokens(cells, LATER_FOLD)
        detailed = self.pam.model.perceiver.visual_tokens(cells, FIRST_FOLD)
        for row, number in enumerate(looked.ids):
            self._signatures[number] = F.normalize(looked.pointers[row].float(), dim=0).cpu().numpy()
            newest = FrameTokens(index, detailed[row].clone(), semantic[row])
            recorded = self._clips.get(number)
            if recorded is None or recorded.opening.index == index:
                self._clips[number] = _ClipRecorder(newest, newest)
            elif recorded.newest.index != index:
                recorded.add(FrameTokens(index, folded[row].clone(), semantic[row]), newest)


Sampling = Callable[[int, int], list[int]]
"""Which of so many frames of a clip the language model sees, and how many at most: see `sample_frames`."""


class PamVideoModel(PamImageModel):
    """PAM on pictures and on videos. `frames` chooses the frames that a clip is described from."""

    def __init__(
        self,
        model: PamModel,
        info: ModelInfo,
        questions: Mapping[str, Mapping[str, str]],
        budget: int = DEFAULT_BUDGET,
        frames: Sampling = sample_frames,
    ) -> None:
        super().__init__(model, info, questions, budget)
        self.frames = frames

    def open_tracker(self, rules: TrackingRules = SAM2_RULES) -> PamTracker:
        return PamTracker(self, rules)

    @torch.inference_mode()
    def describe_clips(
        self,
        clips: Sequence[PamClip],
        languages: Sequence[str] = ("en",),
        previous: Sequence[Mapping[str, str]] = (),
        generation: Generation = Generation(),
    ) -> list[dict[str, str]]:
        codes = language_codes(languages)
        before = self.model.embed_ids(self._before)
        limit = generation.tokens_for("video")
        histories = [*previous, *({} for _ in range(len(clips) - len(previous)))]
        asked = [[self._ids(_question(code, history)) for code in codes] for history in histories]
        longest = [(max(map(len, ids)), limit) for ids in zip(*asked, strict=True)]
        texts: list[dict[str, str]] = []
        shown = [self._shown(clip) for clip in clips]
        lengths = [clip_length(self.model, len(frames)) for frames in shown]
        for group in self.groups(lengths, longest):
            memories, branches = [], []
            for row, index in enumerate(group):
                sequence = torch.cat([before, clip_sequence(self.model, shown[index])])
                memories.append(self._read(sequence, sum(map(len, asked[index])) + limit))
                branches += [Branch(row, ids, limit) for ids in asked[index]]
            for _ in generate(
                self.model.language,
                memories,
                branches,
                stop_ids=self.stop_ids,
                vocabulary=len(self.tokenizer),
                sampling=self._sampling(generation),
            ):
                pass
            answers = iter(branches)
            texts += [{code: self.text(next(answers).answer) for code in codes} for _ in group]
        return texts

    def _shown(self, clip: PamClip) -> list[FrameTokens]:
        seen = (clip.opening, *clip.frames)
        return [seen[index] for index in self.frames(len(seen), CLIP_FRAMES)]


def _question(code: str, history: Mapping[str, str]) -> str:
    said = VIDEO_QUESTIONS[code].format(history=history.get(code) or NO_HISTORY[code])
    return AFTER_IMAGE.format(question=said)


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
