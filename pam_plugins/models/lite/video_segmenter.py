"""MobileSAM on the frames of a video: smaller pictures than for single ones, and many prompts in one batch.

Everything is measured in cells: the decoder's low-resolution masks, four of the encoder's pixels to a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from pam_core.masks import BoolArray, Box
from pam_core.types import Picture
from pam_plugins.models.lite.networks.mask_decoder import (
    LABEL_BOX_BOTTOM_RIGHT,
    LABEL_BOX_TOP_LEFT,
    LABEL_FOREGROUND,
    upscale_logits,
)
from pam_plugins.models.lite.networks.tinyvit import framed
from pam_plugins.models.lite.segmenter import MASK_LOGIT, Segmenter

FloatArray = npt.NDArray[np.float32]

CELL = 4
"""Pixels of the encoder's picture to a cell."""


@dataclass(frozen=True)
class BoxPrompt:
    """A box xyxy, a point inside the object and, where it is about known, its mask (H, W). In cells."""

    box: Box
    point: tuple[float, float]
    mask: BoolArray | None = None


class VideoSegmenter:
    """`side`: the long side of the encoder's picture in pixels, a multiple of 64."""

    def __init__(self, segmenter: Segmenter, side: int) -> None:
        self.segmenter = segmenter
        self.side = side

    def shape(self, size: tuple[int, int]) -> tuple[int, int]:
        """How many cells (high, wide) a picture of `size` (height, width) takes."""
        height, width = self._scaled(size)
        return -(-height // CELL), -(-width // CELL)

    def _scaled(self, size: tuple[int, int]) -> tuple[int, int]:
        height, width = (max(1, int(pixels * self.side / max(size) + 0.5)) for pixels in size)
        return height, width

    @torch.inference_mode()
    def embed(self, picture: Picture) -> torch.Tensor:
        """The image embedding (1, 256, side / 16, side / 16) of an RGB picture (H, W, 3)."""
        height, width = self._scaled((picture.shape[0], picture.shape[1]))
        resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(resized)).to(self.segmenter.device).permute(2, 0, 1)
        frame = framed(pixels, self.side).contiguous(memory_format=torch.channels_last)  # a quarter faster
        features: torch.Tensor = self.segmenter.encoder(frame)
        return features

    @torch.inference_mode()
    def decode(self, features: torch.Tensor, prompts: Sequence[BoxPrompt]) -> tuple[FloatArray, FloatArray]:
        """Logits (N, 4, cells, cells) of the masks of each prompt, and their predicted IoUs (N, 4); one batch."""
        tokens = np.array([_tokens(prompt) for prompt in prompts], np.float32)
        points = torch.from_numpy(tokens[..., :2] * CELL).to(features.device)
        labels = torch.from_numpy(tokens[..., 2].astype(np.int64)).to(features.device)
        logits, ious = self.segmenter.decoder(features, points, labels, self._masks(prompts))
        return logits.float().cpu().numpy(), ious.float().clamp(0, 1).cpu().numpy()

    def _masks(self, prompts: Sequence[BoxPrompt]) -> torch.Tensor:
        """Mask prompts (N, 1, cells, cells) as logits; where no mask is known, what lies in the box is undecided."""
        cells = self.side // CELL
        logits = np.full((len(prompts), 1, cells, cells), -MASK_LOGIT, np.float32)
        for row, prompt in zip(logits[:, 0], prompts, strict=True):
            if prompt.mask is None:
                x1, y1, x2, y2 = (max(0, round(value)) for value in prompt.box)
                row[y1:y2, x1:x2] = 0
            else:
                soft = cv2.GaussianBlur(prompt.mask.astype(np.float32), (5, 5), 0)
                row[: prompt.mask.shape[0], : prompt.mask.shape[1]] = (soft * 2 - 1) * MASK_LOGIT
        return torch.from_numpy(logits).to(self.segmenter.device)

    def full_size(self, logits: FloatArray, size: tuple[int, int]) -> BoolArray:
        """Logits (cells, cells) as a mask of the picture's (height, width)."""
        upscaled = upscale_logits(torch.from_numpy(logits)[None, None], size, self.side)[0, 0]
        mask: BoolArray = (upscaled > 0).numpy()
        return mask

    def cells(self, mask: BoolArray) -> BoolArray:
        """A mask of the picture (H, W) in cells; at least one is set if any pixel is."""
        high, wide = self.shape((mask.shape[0], mask.shape[1]))
        share = cv2.resize(mask.astype(np.float32), (wide, high), interpolation=cv2.INTER_AREA)
        return (share >= min(0.5, float(share.max()))) & (share > 0)


def _tokens(prompt: BoxPrompt) -> list[tuple[float, float, int]]:
    x1, y1, x2, y2 = prompt.box
    return [(*prompt.point, LABEL_FOREGROUND), (x1, y1, LABEL_BOX_TOP_LEFT), (x2, y2, LABEL_BOX_BOTTOM_RIGHT)]
