"""The Semantic Perceiver: turns SAM 2's features of one region into visual and semantic tokens (arXiv 2506.05302, 3).

Learned semantic tokens and SAM 2's output tokens attend to the region's image embedding through SAM's own two-way
transformer. The embedding, updated, is folded into fewer and wider tokens. Knows no SAM 2 but its position encoding.
"""

from __future__ import annotations

import torch
from sam2.modeling.position_encoding import PositionEmbeddingRandom
from torch import Tensor, nn

from pam_core.pam.config import PerceiverConfig
from pam_core.pam.two_way_transformer import TwoWayTransformer


class SemanticPerceiver(TwoWayTransformer):
    """Parameters are named as in the released checkpoints."""

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__(config.depth, config.dim, config.heads, config.mlp_dim, downsample=2)
        self.config = config
        self.sem_tokens = nn.Embedding(config.semantic_tokens, config.dim)
        self.pe_layer = PositionEmbeddingRandom(config.dim // 2)
        self.proj = nn.Linear(16 * config.dim, 4 * config.dim)

    def perceive(self, image: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """An image embedding (B, C, g, g) and output tokens (B, T, C) of B regions -> cells (B, g, g, C), to be made
        visual tokens of, and semantic tokens (B, n, C).
        """
        batch, _, height, width = image.shape
        queries = torch.cat([tokens, self.sem_tokens.weight.expand(batch, -1, -1)], dim=1)
        position = self.pe_layer((height, width)).flatten(1).T[None]  # (1, g * g, C)
        queries, cells = self(queries, image.flatten(2).transpose(1, 2), position)
        return cells.view(batch, height, width, -1), queries[:, tokens.shape[1] :]

    def visual_tokens(self, cells: Tensor, fold: int = 2) -> Tensor:
        """Cells (B, g, g, C) as visual tokens (B, g * g / fold**2, 4C), column by column.

        `fold` is 2 for pictures and first frames, 4 for the other frames of a video.
        """
        folded = fold_cells(cells, fold)
        return self.proj(folded) if fold == 4 else folded


def fold_cells(cells: Tensor, fold: int) -> Tensor:
    """Squares of `fold` x `fold` cells as one token each, (B, h, w, C) -> (B, w/f * h/f, f * f * C).

    Within a token the cells stand row by row; the tokens themselves column by column, as the released models had it.
    """
    batch, height, width, channels = cells.shape
    cells = cells.reshape(batch, height // fold, fold, width // fold, fold, channels)
    return cells.permute(0, 3, 1, 2, 4, 5).flatten(3).flatten(1, 2)
