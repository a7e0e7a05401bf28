"""Qwen2 of `transformers`, with an attention that lets many questions share one prefix.

All questions about a region have its visual tokens in common, a thousand of them. Their keys and values are kept
once a region (`PrefixCache`); each question is a branch that attends to the prefix and to itself. Tokens of all
branches of all regions go through the model packed into one row, so that its matrix products are as large as they
can be and nothing is padded. No layer of Qwen2 is written again: `transformers` lets a cache and an attention
function be handed in. Knows nothing of pictures or of sampling.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, Qwen2Config, Qwen2ForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.qwen2.modeling_qwen2 import Qwen2Model

from pam_core.pam.config import LanguageConfig, PamConfig

ATTENTION = "pam_branches"
PREFIX = -1
_CACHE = "cache" if "cache" in inspect.signature(Qwen2Model.forward).parameters else "past_key_values"
_CAUSAL = {"full_attention": None}
"""No mask: `transformers` then takes each row of a prefill to be causal, and branches bring their own."""


class PrefixCache:
    """Keys and values of one region, by layer: a prefix that all its branches see, then their tokens as they come."""

    def __init__(self, layers: int, prefix: int, reserve: int) -> None:
        self.prefix = prefix
        self.length = prefix
        self.owners = torch.full((prefix + reserve,), PREFIX)
        self._keys: list[Tensor | None] = [None] * layers
        self._values: list[Tensor | None] = [None] * layers

    def claim(self, branches: Tensor) -> slice:
        """Room for one token of each of these branches, in order; says where."""
        start, self.length = self.length, self.length + len(branches)
        if self.length > len(self.owners):
            more = max(self.length, len(self.owners) + len(self.owners) // 4)
            self.owners = F.pad(self.owners, (0, more - len(self.owners)), value=PREFIX)
        self.owners[start : self.length] = branches
        return slice(start, self.length)

    def write(self, layer: int, where: slice, keys: Tensor, values: Tensor) -> None:
        """Keep keys and values (heads, tokens, d) of one layer."""
        self._keys[layer] = self._put(self._keys[layer], where, keys)
        self._values[layer] = self._put(self._values[layer], where, values)

    def _put(self, kept: Tensor | None, where: slice, new: Tensor) -> Tensor:
        if kept is None or kept.shape[1] < where.stop:
            roomier = new.new_empty(new.shape[0], len(self.owners), new.shape[2])
            if kept is not None:
                roomier[:, : where.start] = kept[:, : where.start]
            kept = roomier
        kept[:, where] = new
        return kept

    def attend(self, layer: int, queries: Tensor, seen: Tensor | None, scale: float) -> Tensor:
        """Queries (heads, n, d) on what they may see, a mask (n, length) or all of it -> (n, heads, d)."""
        keys, values = self._keys[layer], self._values[layer]
        assert keys is not None and values is not None
        heads, count, dim = queries.shape
        groups = heads // len(keys)
        # Query heads that share a key head stand side by side: (1, key heads, groups * n, d), nothing is repeated.
        grouped = queries.reshape(1, len(keys), groups * count, dim)
        mask = None if seen is None else seen.repeat(groups, 1)
        out = F.scaled_dot_product_attention(
            grouped, keys[None, :, : self.length], values[None, :, : self.length], attn_mask=mask, scale=scale
        )
        return out.reshape(heads, count, dim).transpose(0, 1)


class _Writing:
    """A cache as `transformers` sees one, for a single forward pass."""

    def get_seq_length(self, *_: object) -> int:
        return 0


class _Prefill(_Writing):
    def __init__(self, region: PrefixCache) -> None:
        self.region = region

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        self.region.write(layer_idx, slice(0, self.region.prefix), keys[0], values[0])
        return keys, values


class _Extension(_Writing):
    """Tokens of many branches, packed into one row, region by region."""

    def __init__(self, regions: Sequence[PrefixCache], branches: Sequence[Tensor]) -> None:
        self.regions = regions
        self.where = [region.claim(owners) for region, owners in zip(regions, branches, strict=True)]
        self.counts = [len(owners) for owners in branches]
        self.seen: list[Tensor | None] = []

    def prepare(self, branches: Sequence[Tensor], device: torch.device) -> None:
        """What each token may see: the prefix, and earlier tokens of its own branch."""
        for region, where, owners in zip(self.regions, self.where, branches, strict=True):
            all_owners = region.owners[: region.length]
            own = (all_owners == PREFIX) | (all_owners == owners[:, None])
            past = torch.arange(region.length) <= torch.arange(where.start, where.stop)[:, None]
            seen = own & past
            self.seen.append(None if bool(seen.all()) else seen.to(device))

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[_Extension, _Extension]:
        parts = zip(torch.split(keys[0], self.counts, 1), torch.split(values[0], self.counts, 1), strict=True)
        for region, where, (k, v) in zip(self.regions, self.where, parts, strict=True):
            region.write(layer_idx, where, k, v)
        return self, self

    def attend(self, layer: int, queries: Tensor, scale: float) -> Tensor:
        """(1, heads, N, d) -> (1, N, heads, d)"""
        parts = torch.split(queries[0], self.counts, 1)
        out = [
            region.attend(layer, part, seen, scale)
            for region, part, seen in zip(self.regions, parts, self.seen, strict=True)
        ]
        return torch.cat(out)[None]


def _attention(
    module: Any, query: Tensor, key: Any, value: Any, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    if isinstance(key, _Extension):
        return key.attend(module.layer_idx, query, module.scaling), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def build_language(config: PamConfig) -> Qwen2ForCausalLM:
    """Qwen2 with random weights; on the meta device, only its shapes."""
    qwen = Qwen2Config(
        **config.language.to_qwen2(),
        use_sliding_window=False,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        attn_implementation=ATTENTION,
    )
    return Qwen2ForCausalLM(qwen)


def prefill(language: Qwen2ForCausalLM, embeddings: Tensor, reserve: int) -> PrefixCache:
    """Read a prefix (L, H) once; branches then start from the memory of it, which has room for `reserve` tokens."""
    length = len(embeddings)
    memory = PrefixCache(language.config.num_hidden_layers, length, reserve)
    positions = torch.arange(length, device=embeddings.device)
    _run(language, embeddings, positions, _Prefill(memory))
    return memory


def extend(
    language: Qwen2ForCausalLM,
    regions: Sequence[PrefixCache],
    branches: Sequence[Tensor],
    embeddings: Tensor,
    positions: Tensor,
) -> Tensor:
    """Read tokens of branches, packed region by region: for each region, `branches` says whose each token is.

    `embeddings` (N, H), `positions` (N,) counted from the start of the prefix -> hidden states (N, H).
    """
    extension = _Extension(regions, branches)
    extension.prepare(branches, embeddings.device)
    return _run(language, embeddings, positions, extension)


def _run(language: Qwen2ForCausalLM, embeddings: Tensor, positions: Tensor, cache: _Writing) -> Tensor:
    out = language.model(
        inputs_embeds=embeddings[None],
        position_ids=positions[None],
        attention_mask=_CAUSAL,
        use_cache=True,
        **{_CACHE: cache},
    )
    hidden: Tensor = out.last_hidden_state[0]
    return hidden


def bytes_per_token(config: LanguageConfig, dtype: torch.dtype) -> int:
    """What one token's keys and values take."""
    return 2 * config.layers * config.kv_heads * (config.hidden_size // config.heads) * dtype.itemsize
