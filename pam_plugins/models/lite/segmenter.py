"""Segment prompts with MobileSAM: one pass of the encoder per picture, one of the mask decoder per prompt.

Kirillov et al., "Segment Anything" (arXiv 2304.02643) for the decoder and its prompts; Zhang et al., "Faster Segment
Anything" (arXiv 2306.14289) for the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from pam_core.masks import BoolArray, Box, Mask
from pam_core.types import Picture, Prompt
from pam_plugins.models.lite.loading import load_weights
from pam_plugins.models.lite.naming import box_iou
from pam_plugins.models.lite.networks.mask_decoder import (
    LABEL_BOX_BOTTOM_RIGHT,
    LABEL_BOX_TOP_LEFT,
    LABEL_FOREGROUND,
    LABEL_PADDING,
    MaskDecoder,
    upscale_logits,
)
from pam_plugins.models.lite.networks.tinyvit import FRAME_SIZE, TinyViT, framed

LOW_SIDE = 256
MASK_LOGIT = 10.0
BATCH = 16


@dataclass(frozen=True)
class Candidate:
    """One mask predicted for a prompt, with the decoder's IoU estimate and its stability."""

    mask: BoolArray
    predicted_iou: float
    stability: float


class Segmenter:
    """Encoder and decoder, conversion of coordinates, and the ranking of a click's three masks."""

    def __init__(self, encoder: TinyViT, decoder: MaskDecoder, device: torch.device) -> None:
        self.encoder = encoder
        self.decoder = decoder
        self.device = device

    @classmethod
    def load(cls, device: torch.device) -> Segmenter:
        encoder = load_weights(TinyViT(), "tinyvit", device)
        return cls(encoder, load_weights(MaskDecoder(), "mask_decoder", device), device)

    @torch.inference_mode()
    def embed(self, picture: Picture) -> torch.Tensor:
        """The image embedding (1, 256, 64, 64) of an RGB picture (H, W, 3)."""
        height, width = _scaled_size(picture.shape[0], picture.shape[1])
        resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(resized)).to(self.device).permute(2, 0, 1)
        features: torch.Tensor = self.encoder(framed(pixels))
        return features

    @torch.inference_mode()
    def segment(
        self,
        features: torch.Tensor,
        size: tuple[int, int],
        prompts: Sequence[Prompt],
        objects: Sequence[tuple[Box, float]] = (),
    ) -> list[Candidate]:
        """The best mask of each prompt. `size`: the picture's (height, width).

        A single click is ambiguous and has three masks (part, object, whole), and one that fills the box of one of
        the `objects` (box xyxy in pixels, detection score in [0, 1]) is preferred; anything more is taken at its word
        and has the decoder's single mask.
        """
        best: dict[int, Candidate] = {}
        for batch in _batches(prompts):
            chosen = [prompts[index] for index in batch]
            points, labels, masks = _prompt_tensors(chosen, size)
            if masks is not None:
                masks = masks.to(self.device)
            logits, ious = self.decoder(features, points.to(self.device), labels.to(self.device), masks)
            logits, ious = logits.float().cpu(), ious.float().cpu()
            stabilities = _stability(logits)
            for row, (index, prompt) in enumerate(zip(batch, chosen, strict=True)):
                tokens = (1, 2, 3) if _is_ambiguous(prompt) else (0,)
                rank_scores = _rank_scores(logits[row], ious[row], stabilities[row], size, objects)
                token = max(tokens, key=lambda token: rank_scores[token])
                best[index] = Candidate(
                    _clean(_full_size(logits[row, token], size), prompt),
                    float(ious[row, token].clamp(0, 1)),
                    float(stabilities[row, token]),
                )
        return [best[index] for index in range(len(prompts))]


def _prompt_tensors(
    prompts: Sequence[Prompt], size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Prompts of one shape as points (B, P, 2), labels (B, P) and mask logits (B, 1, 256, 256) for the decoder."""
    scale = _scale(*size)
    tokens = [_tokens(prompt) for prompt in prompts]
    points = torch.tensor([[(x * scale, y * scale) for x, y, _ in row] for row in tokens], dtype=torch.float32)
    labels = torch.tensor([[label for _, _, label in row] for row in tokens], dtype=torch.int64)
    if prompts[0].mask is None:
        return points, labels, None
    return points, labels, torch.from_numpy(np.stack([_low_resolution(p.mask) for p in prompts if p.mask]))[:, None]


def _full_size(logits: torch.Tensor, size: tuple[int, int]) -> BoolArray:
    """Low-resolution logits (256, 256) as a mask of the picture's (height, width)."""
    mask: BoolArray = (upscale_logits(logits[None, None], size)[0, 0] > 0).numpy()
    return mask


def _scale(height: int, width: int) -> float:
    return FRAME_SIZE / max(height, width)


def _scaled_size(height: int, width: int) -> tuple[int, int]:
    scale = _scale(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def _is_ambiguous(prompt: Prompt) -> bool:
    return len(prompt.points) == 1 and prompt.box is None and prompt.mask is None


def _tokens(prompt: Prompt) -> list[tuple[float, float, int]]:
    """A prompt as SAM's point tokens: the points, then the box's corners, or a padding point without a box."""
    tokens = [(x, y, label) for (x, y), label in zip(prompt.points, prompt.labels, strict=True)]
    if prompt.box is None:
        return [*tokens, (0.0, 0.0, LABEL_PADDING)]
    x1, y1, x2, y2 = prompt.box
    return [*tokens, (x1, y1, LABEL_BOX_TOP_LEFT), (x2, y2, LABEL_BOX_BOTTOM_RIGHT)]


def _batches(prompts: Sequence[Prompt]) -> list[list[int]]:
    """Indices of prompts that can share a decoder batch: as many tokens each, all with a mask or all without."""
    groups: dict[tuple[int, bool], list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault((len(_tokens(prompt)), prompt.mask is not None), []).append(index)
    return [group[i : i + BATCH] for group in groups.values() for i in range(0, len(group), BATCH)]


def _low_resolution(mask: Mask) -> npt.NDArray[np.float32]:
    """A mask prompt as decoder input logits (256, 256), padded like the picture."""
    height, width = (round(side * LOW_SIDE / FRAME_SIZE) for side in _scaled_size(mask.height, mask.width))
    logits = np.full((LOW_SIDE, LOW_SIDE), -MASK_LOGIT, np.float32)
    size = (max(1, width), max(1, height))
    small = cv2.resize(mask.array.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    logits[: size[1], : size[0]] = (small * 2 - 1) * MASK_LOGIT
    return logits


def _stability(logits: torch.Tensor, offset: float = 1.0) -> torch.Tensor:
    """IoU of masks cut `offset` above and below zero (SAM, appendix B); 1 is crisp. (B, 4, H, W) -> (B, 4)"""
    inner = (logits > offset).sum(dim=(-2, -1)).float()
    outer = (logits > -offset).sum(dim=(-2, -1)).float()
    return inner / outer.clamp(min=1)


def _rank_scores(
    logits: torch.Tensor,
    ious: torch.Tensor,
    stabilities: torch.Tensor,
    size: tuple[int, int],
    objects: Sequence[tuple[Box, float]],
) -> list[float]:
    """Ranking scores of the masks (N, H, W) of one prompt: predicted IoU, plus how well the mask's box fits a
    detected object's, plus a little stability as a tie-break.

    The detection score counts uncalibrated: a detection too weak to give a label still localises the object. The
    weights were set on the development clicks; 0.25 to 0.7 for the objects gives the same result.
    """
    base = ious + 0.02 * stabilities
    boxes = [_low_box(mask, size) for mask in logits > 0]
    return [float(score) + 0.5 * _object_fit(box, objects) for score, box in zip(base, boxes, strict=True)]


def _object_fit(box: Box, objects: Sequence[tuple[Box, float]]) -> float:
    """The largest detection score, each scaled from 0 at a box IoU of 0.5 to 1 at an IoU of 1."""
    return max((score * max(0.0, 2 * box_iou(box, other) - 1) for other, score in objects), default=0.0)


def _low_box(mask: torch.Tensor, size: tuple[int, int]) -> Box:
    """The tight box, in pixels of the picture, of a low-resolution mask (256, 256); zeros for an empty one."""
    rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    pixel = FRAME_SIZE / LOW_SIDE / _scale(*size)
    x1, y1, x2, y2 = (float(edge) * pixel for edge in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    return x1, y1, min(x2, size[1]), min(y2, size[0])


def _clean(mask: BoolArray, prompt: Prompt, speck: float = 0.02) -> BoolArray:
    """Fill holes and drop components smaller than `speck` of the largest, unless a foreground click is on them."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    if count > 2:
        areas = stats[:, cv2.CC_STAT_AREA].astype(np.int64)
        areas[0] = 0
        keep = areas >= speck * areas.max()
        for (x, y), label in zip(prompt.points, prompt.labels, strict=True):
            keep[parts[int(y), int(x)]] |= label == LABEL_FOREGROUND
        keep[0] = False
        mask = keep[parts]
    count, holes, stats, _ = cv2.connectedComponentsWithStats((~mask).view(np.uint8), connectivity=4)
    areas = stats[:, cv2.CC_STAT_AREA]
    fill = areas < speck / 4 * mask.sum()
    fill[0] = False
    return mask | fill[holes]
