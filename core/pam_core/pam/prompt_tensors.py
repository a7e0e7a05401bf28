"""Prompts as SAM 2 takes them, in groups that one run of the mask decoder can answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pam_core.masks import Mask
from pam_core.pam.vision import PromptTensors
from pam_core.types import Prompt

BOX_CORNERS = (2, 3)
BATCH = 16
"""Prompts a run: at full size each takes some 70 MB while it is decoded."""


def prompt_batches(
    prompts: Sequence[Prompt], width: int, height: int, size: int
) -> Iterator[tuple[list[int], PromptTensors]]:
    """Prompts on a picture of `width` x `height`, as (indices, tensors) for an encoder picture of `size` x `size`.

    Together go prompts with the same number of points, as SAM 2 lets none be left out.
    """
    groups: dict[tuple[int, bool], list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault((len(_tokens(prompt)), prompt.mask is not None), []).append(index)
    for (_, masked), group in groups.items():
        for start in range(0, len(group), BATCH):
            chosen = group[start : start + BATCH]
            yield chosen, _tensors([prompts[index] for index in chosen], masked, width, height, size)


def _tensors(prompts: Sequence[Prompt], masked: bool, width: int, height: int, size: int) -> PromptTensors:
    rows = [_tokens(prompt) for prompt in prompts]
    points = torch.tensor([[(x, y) for x, y, _ in row] for row in rows], dtype=torch.float32)
    points = points.view(len(prompts), -1, 2) / torch.tensor([width, height]) * size
    labels = torch.tensor([[label for *_, label in row] for row in rows], dtype=torch.int64).view(len(prompts), -1)
    masks = torch.cat([_mask(p.mask, size) for p in prompts if p.mask is not None]) if masked else None
    return PromptTensors(points, labels, masks)


def _tokens(prompt: Prompt) -> list[tuple[float, float, int]]:
    """A box's corners, then the points."""
    corners: list[tuple[float, float, int]] = []
    if prompt.box is not None:
        x1, y1, x2, y2 = prompt.box
        corners = [(x1, y1, BOX_CORNERS[0]), (x2, y2, BOX_CORNERS[1])]
    return corners + [(x, y, label) for (x, y), label in zip(prompt.points, prompt.labels, strict=True)]


def _mask(mask: Mask, size: int) -> Tensor:
    """A mask at the encoder's size (1, 1, size, size), cut at one half as SAM 2 does, or lower where none is left."""
    dense = torch.from_numpy(mask.array)[None, None].float()
    if dense.shape[2:] != (size, size):
        dense = F.interpolate(dense, (size, size), mode="bilinear", align_corners=False, antialias=True)
    cut = dense >= 0.5
    return (cut if bool(cut.any()) else dense > 0).float()
