"""SAM 2's memory attention for several objects on one frame, with less work and the same result up to rounding.

The first layer's self-attention of the frame is the same for every object. Attention's rows sum to 1, so values need
not be projected before they are averaged: memories have a quarter of the channels.
"""

from __future__ import annotations

import torch
from sam2.modeling.memory_attention import MemoryAttention
from sam2.modeling.position_encoding import apply_rotary_enc
from sam2.modeling.sam.transformer import RoPEAttention
from torch import Tensor

QUERIES = 256
"""Queries at a time: at full size each attends to 29,000 keys, and their scores are 30 MB, twice."""


def attend_memory(
    attention: MemoryAttention, frame: Tensor, position: Tensor, memory: Tensor, places: Tensor, pointers: int
) -> Tensor:
    """A frame's cells (1, L, d), with the encoding of their positions, conditioned on N objects' memories (N, L, d).

    `memory` (N, K, m) and `places` (1 or N, K, m): maps of L cells, then `pointers` of what has no place in a map.
    Not to be differentiated.
    """
    cells = frame + 0.1 * position
    for layer in attention.layers:
        normed = layer.norm1(cells)
        cells = cells + layer.self_attn(normed, normed, normed)
        cells = cells + _attend(layer.cross_attn_image, layer.norm2(cells), memory, places, pointers)
        cells = cells + layer.linear2(layer.activation(layer.linear1(layer.norm3(cells))))
    conditioned: Tensor = attention.norm(cells)
    return conditioned


def _attend(attention: RoPEAttention, cells: Tensor, memory: Tensor, places: Tensor, pointers: int) -> Tensor:
    """Cells (1 or N, L, d) at memory (N, K, m) -> the memory at each cell (N, L, d). One head, as SAM 2 has it."""
    queries = attention.q_proj(cells)
    placed = memory.shape[1] - pointers
    turns = attention.freqs_cis.to(cells.device)
    averaged = memory.new_empty(len(memory), cells.shape[1], memory.shape[2])
    scores, shares = (memory.new_empty(QUERIES, memory.shape[1]) for _ in range(2))  # made anew, they cost a quarter
    for row, kept in enumerate(memory):
        keys = attention.k_proj(kept + places[row % len(places)])
        mine = queries[row % len(queries)]
        turned, keys[None, None, :placed] = apply_rotary_enc(
            mine[None, None], keys[None, None, :placed], turns, repeat_freqs_k=True
        )
        turned = turned[0, 0] * mine.shape[-1] ** -0.5
        for some, out in zip(torch.split(turned, QUERIES), torch.split(averaged[row], QUERIES), strict=True):
            torch.mm(some, keys.T, out=scores[: len(some)])
            torch.softmax(scores[: len(some)], dim=-1, out=shares[: len(some)])
            torch.mm(shares[: len(some)], kept, out=out)
    attended: Tensor = attention.out_proj(attention.v_proj(averaged))
    return attended
