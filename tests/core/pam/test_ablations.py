"""The choices that the paper ablates are configuration: each builds a model that runs from click to loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pam_core.pam.model import PamModel
from pam_core.pam.prompt_tensors import prompt_batches
from pam_core.pam.vision import preprocess
from tests.tiny_pam import EIGHT, picture


@pytest.mark.parametrize("semantic_tokens", [0, 4, 16, 64])
@pytest.mark.parametrize("image_features", ["after", "before"])
@pytest.mark.parametrize("tokens", ["mask", "all"])
@torch.inference_mode()
def test_a_model_of_every_choice_runs(tiny: PamModel, semantic_tokens: int, image_features: str, tokens: str) -> None:
    config = tiny.config
    choice = replace(config.perceiver, semantic_tokens=semantic_tokens, image_features=image_features, tokens=tokens)
    model = PamModel(replace(config, perceiver=choice)).eval()
    features = model.vision.encode(preprocess(picture(), 1024)[None])
    for indices, tensors in prompt_batches(EIGHT, 160, 120, 1024):
        decoded, _, _ = model.vision.answer_prompts(features, tensors)
        sequence = model.project(*model.perceive(decoded))
        separators = 2 if semantic_tokens else 1
        assert sequence.shape == (len(indices), 1024 + semantic_tokens + separators, config.language.hidden_size)
        assert sequence.isfinite().all()
