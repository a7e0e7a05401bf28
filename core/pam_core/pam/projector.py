"""Maps the perceiver's tokens into the language model's embedding space ("mlp2x_gelu")."""

from __future__ import annotations

from torch import nn


class Projector(nn.Sequential):
    """Two linear layers around a GELU, (..., `dim`) -> (..., `hidden`)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden))
