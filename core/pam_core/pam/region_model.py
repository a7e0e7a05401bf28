"""PAM as a `RegionModel`: pictures encoded once, prompts decoded in batches, questions answered together.

Knows neither plugins nor files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from pam_core.contracts import ModelInfo
from pam_core.pam.chat import ChatFormat
from pam_core.pam.clips import sample_frames
from pam_core.pam.description import DEFAULT_BUDGET, CallCounts, PamDescription
from pam_core.pam.model import PamModel
from pam_core.pam.segmentation import PamEmbedding, segment
from pam_core.pam.tracker import PamTracker
from pam_core.pam.vision import preprocess
from pam_core.questions import ImageEmbedding, Question
from pam_core.types import Picture, Prompt, Region


class PamRegionModel:
    """PAM on pictures and videos.

    `questions` holds, by task and language, the words put to the language model. `budget` limits, in bytes, the keys
    and values of the regions that are described together. `sample` chooses the frames that a clip is described from.
    """

    def __init__(
        self,
        model: PamModel,
        info: ModelInfo,
        questions: Mapping[str, Mapping[str, str]],
        budget: int = DEFAULT_BUDGET,
        sample: Callable[[int], list[int]] = sample_frames,
    ) -> None:
        self.model, self.info, self.budget, self.sample = model, info, budget, sample
        self.chat = ChatFormat(model, questions)
        self.counts = CallCounts()

    @torch.inference_mode()
    def embed(self, pictures: Sequence[Picture]) -> list[PamEmbedding]:
        if not pictures:
            return []
        self.counts.encoded += len(pictures)
        size = self.model.config.vision.image_size
        features = self.model.vision.encode(torch.stack([preprocess(picture, size) for picture in pictures]))
        return [
            PamEmbedding(int(picture.shape[1]), int(picture.shape[0]), one)
            for picture, one in zip(pictures, features.split(), strict=True)
        ]

    def segment(self, prompts: Sequence[tuple[ImageEmbedding, Prompt]]) -> list[list[Region]]:
        for embedding, prompt in prompts:
            prompt.check(embedding.width, embedding.height)
        return [[region] for region in segment(self.model, prompts, self.info.ref)]

    def describe(self, questions: Sequence[Question]) -> PamDescription:
        description = PamDescription(self.model, self.info, self.chat, self.counts, self.budget, self.sample)
        description.add(questions)
        return description

    def open_tracker(self) -> PamTracker:
        return PamTracker(self.model, self.info.ref)
