"""Prompts on encoded pictures: masks, and the regions as the language model reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pam_core.masks import Mask
from pam_core.pam.model import PamModel
from pam_core.pam.prompt_tensors import prompt_batches
from pam_core.pam.vision import Decoded, ImageFeatures, full_size, stability
from pam_core.questions import ImageEmbedding
from pam_core.types import ModelRef, Prompt, Region

Prompts = Sequence[tuple[ImageEmbedding, Prompt]]
"""Prompts, each with its picture's embedding."""


@dataclass(frozen=True)
class PamEmbedding:
    """The encoder's features of a picture, 17 MB at full size in float32."""

    width: int
    height: int
    features: ImageFeatures

    @property
    def nbytes(self) -> int:
        return self.features.nbytes


@torch.inference_mode()
def segment(model: PamModel, prompts: Prompts, ref: ModelRef) -> list[Region]:
    """One region per prompt, in order. A mask without points or box is its own answer."""
    regions: dict[int, Region] = {}
    for indices, decoded, logits, presence in decode_prompts(model, prompts):
        embedding = prompts[indices[0]][0]
        masks = (full_size(logits, embedding.height, embedding.width) > 0).cpu().numpy()
        stabilities = stability(logits[:, 0]).tolist()
        for row, index in enumerate(indices):
            prompt = prompts[index][1]
            given = prompt.mask if not prompt.points and prompt.box is None else None
            regions[index] = Region(
                mask=given or Mask.from_array(masks[row, 0]),
                model=ref,
                prompt=prompt,
                predicted_iou=None if given else float(decoded.ious[row, 0]),
                stability=None if given else stabilities[row],
                presence=float(presence[row, 0].sigmoid()),
            )
    return [regions[index] for index in range(len(prompts))]


@torch.inference_mode()
def region_sequences(model: PamModel, prompts: Prompts) -> list[Tensor]:
    """Each prompt's region as the language model reads it (V, H)."""
    sequences: dict[int, Tensor] = {}
    for indices, decoded, _, _ in decode_prompts(model, prompts):
        sequences.update(zip(indices, model.project(*model.perceive(decoded)), strict=True))
    return [sequences[index] for index in range(len(prompts))]


def decode_prompts(model: PamModel, prompts: Prompts) -> Iterator[tuple[list[int], Decoded, Tensor, Tensor]]:
    """The mask decoder's output by batches of prompts on one picture.

    Yields the prompts' indices, the `Decoded`, mask logits (N, 1, 4g, 4g) and presence (N, 1).
    """
    by_picture: dict[int, list[int]] = {}
    for index, (embedding, _) in enumerate(prompts):
        by_picture.setdefault(id(embedding), []).append(index)
    for group in by_picture.values():
        embedding = prompts[group[0]][0]
        assert isinstance(embedding, PamEmbedding)
        on_picture = [prompts[index][1] for index in group]
        size = model.config.vision.image_size
        for rows, tensors in prompt_batches(on_picture, embedding.width, embedding.height, size):
            yield [group[row] for row in rows], *model.vision.answer_prompts(embedding.features, tensors)
