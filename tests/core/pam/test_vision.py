"""SAM 2 as PAM uses it: prompts in batches, the stability choice, folding of cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pam_core.pam.model import PamModel
from pam_core.pam.perceiver import fold_cells
from pam_core.pam.prompt_tensors import BATCH, prompt_batches
from pam_core.pam.vision import preprocess, stability, stable_choice
from pam_core.types import Prompt
from tests.tiny_pam import EIGHT, picture


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.sampled_from([2, 4]))
def test_cells_fold_into_tokens_column_by_column(batch: int, rows: int, columns: int, fold: int) -> None:
    cells = torch.arange(batch * rows * columns * fold**2 * 3).view(batch, rows * fold, columns * fold, 3)
    tokens = fold_cells(cells, fold)
    assert tokens.shape == (batch, rows * columns, fold**2 * 3)
    for column in range(columns):
        for row in range(rows):
            square = cells[:, row * fold : (row + 1) * fold, column * fold : (column + 1) * fold]
            assert torch.equal(tokens[:, column * rows + row], square.reshape(batch, -1))


@given(st.lists(st.floats(-0.25, 0.25, width=32), min_size=4, max_size=4))
def test_stability_is_an_iou(values: list[float]) -> None:
    logits = torch.tensor(values).view(2, 2)
    inner, outer = (logits > 0.05).sum(), (logits > -0.05).sum()
    assert float(stability(logits)) == pytest.approx(1.0 if outer == 0 else float(inner / outer))


def test_an_unstable_mask_gives_way_to_the_best_of_the_others() -> None:
    steady, shaky = torch.full((4, 8, 8), 3.0), torch.full((4, 8, 8), 0.01)
    ious = torch.tensor([[0.9, 0.1, 0.8, 0.3]]).expand(2, -1)
    assert stable_choice(torch.stack([steady, shaky]), ious).tolist() == [0, 2]


@given(st.lists(st.sampled_from(EIGHT), min_size=1, max_size=40))
def test_every_prompt_is_in_one_batch_with_its_like(prompts: list[Prompt]) -> None:
    seen: list[int] = []
    for indices, tensors in prompt_batches(prompts, 160, 120, 1024):
        assert len(indices) <= BATCH
        assert len(tensors.points) == len(tensors.labels) == len(indices)
        seen += indices
        for index, points, labels in zip(indices, tensors.points, tensors.labels, strict=True):
            prompt = prompts[index]
            corners = 2 if prompt.box else 0
            assert labels.tolist() == [*([2, 3] if prompt.box else []), *prompt.labels]
            assert (tensors.masks is not None) == (prompt.mask is not None)
            wanted = [(x / 160 * 1024, y / 120 * 1024) for x, y in prompt.points]
            assert points[corners:].tolist() == [pytest.approx(point) for point in wanted]
    assert sorted(seen) == list(range(len(prompts)))


@torch.inference_mode()
def test_a_batch_of_prompts_is_answered_as_each_alone(tiny: PamModel) -> None:
    features = tiny.vision.encode(preprocess(picture(), 1024)[None])
    clicks = [Prompt.at(10 * n + 5, 8 * n + 5) for n in range(10)]
    ((_, together),) = prompt_batches(clicks, 160, 120, 1024)
    decoded, logits, presence = tiny.vision.answer_prompts(features, together)
    for row, click in enumerate(clicks):
        ((_, alone),) = prompt_batches([click], 160, 120, 1024)
        one, one_logits, one_presence = tiny.vision.answer_prompts(features, alone)
        for a, b in (
            (decoded.after[row], one.after[0]),
            (decoded.tokens[row], one.tokens[0]),
            (logits[row], one_logits[0]),
            (presence[row], one_presence[0]),
            (decoded.stable_tokens[row], one.stable_tokens[0]),
        ):
            assert torch.allclose(a, b, atol=1e-3 * float(b.abs().max()))


def test_a_picture_is_scaled_as_pillow_does_and_normalised() -> None:
    pixels = preprocess(np.full((30, 50, 3), 255, np.uint8), 64)
    assert pixels.shape == (3, 64, 64) and pixels.dtype == torch.float32
    assert pixels[:, 5, 5].tolist() == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
