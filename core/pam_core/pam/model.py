"""PamModel: SAM 2, the Semantic Perceiver, projectors and a language model put together (arXiv 2506.05302).

One region at a time is what the parts work on; everything here takes a batch of them. Files are read and written by
`checkpoint`; answers are decoded by `generation`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from pam_core.pam.config import PamConfig
from pam_core.pam.language import build_language
from pam_core.pam.perceiver import SemanticPerceiver
from pam_core.pam.projector import Projector
from pam_core.pam.vision import Decoded, VisionTower

FIRST_FOLD, LATER_FOLD = 2, 4


class PamModel(nn.Module):
    """The whole model. `tokenizer` and `generation` (of generation_config.json) come from its checkpoint."""

    def __init__(self, config: PamConfig) -> None:
        super().__init__()
        hidden, dim = config.language.hidden_size, config.perceiver.dim
        self.config = config
        self.vision = VisionTower(config.vision)
        self.perceiver = SemanticPerceiver(config.perceiver)
        self.image_projector = Projector(4 * dim, hidden)
        self.semantic_projector = Projector(dim, hidden)
        self.image_newline = nn.Parameter(torch.zeros(hidden))
        self.semantic_newline = nn.Parameter(torch.zeros(hidden))
        self.frame_newline = nn.Parameter(torch.zeros(hidden))
        self.language = build_language(config)
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.generation: dict[str, Any] = {}
        self.revision = "random"
        self.vision.requires_grad_(False)  # frozen in training, as in the paper

    @property
    def device(self) -> torch.device:
        return self.image_newline.device

    @property
    def dtype(self) -> torch.dtype:
        """That of the heavy parts: the image encoder, the projectors and the language model."""
        return self.image_newline.dtype

    def place(self, device: torch.device, dtype: torch.dtype) -> PamModel:
        """Move to a device and a dtype. The mask decoder and the perceiver, which are small, stay in float32: in half
        precision they blur masks and move clicks by pixels.
        """
        self.to(device, dtype)
        self.vision.float()
        self.perceiver.float()
        self.vision.sam.image_encoder.to(dtype)
        return self

    def compile_parts(self) -> None:
        """Compile what always sees one shape: the image encoder. The first picture is slow then."""
        self.vision.sam.image_encoder.compile()

    def perceive(self, decoded: Decoded) -> tuple[Tensor, Tensor]:
        """What SAM 2 made of N regions -> visual tokens (N, V, 4C) and semantic tokens (N, n, C), as of pictures."""
        cells, semantic = self.perceive_cells(decoded)
        return self.perceiver.visual_tokens(cells, FIRST_FOLD), semantic

    def perceive_cells(self, decoded: Decoded) -> tuple[Tensor, Tensor]:
        """What SAM 2 made of N regions -> cells (N, g, g, C), to be made visual tokens of, and semantic tokens."""
        image = decoded.after if self.config.perceiver.image_features == "after" else decoded.before
        tokens = decoded.stable_tokens if self.config.perceiver.tokens == "mask" else decoded.tokens
        return self.perceiver.perceive(image, tokens)

    def project(self, visual: Tensor, semantic: Tensor) -> Tensor:
        """Tokens of N regions as the language model reads them, with separators (N, L, H); L is 1,042 for a picture.

        Without semantic tokens their separator is left out too.
        """
        count = len(visual)
        visual, semantic = visual.to(self.dtype), semantic.to(self.dtype)
        parts = [self.image_projector(visual), self.image_newline.expand(count, 1, -1)]
        if semantic.shape[1]:
            parts += [self.semantic_projector(semantic), self.semantic_newline.expand(count, 1, -1)]
        return torch.cat(parts, dim=1)

    @property
    def visual_length(self) -> int:
        """Tokens of a picture's region: 1,042 as released."""
        semantic = self.config.perceiver.semantic_tokens
        return (self.config.vision.grid // FIRST_FOLD) ** 2 + 1 + (semantic + 1 if semantic else 0)

    def embed_ids(self, ids: list[int] | Tensor) -> Tensor:
        """Token ids (n,) as the language model's embeddings (n, H)."""
        return self.language.model.embed_tokens(torch.as_tensor(ids, dtype=torch.int64, device=self.device))
