"""The loss on conversations; what it should be is compared in test_parity.py."""

from __future__ import annotations

import pytest
import torch

from pam_core.pam.model import PamModel
from pam_core.pam.training.conversations import IGNORED, IMAGE, ConversationError, tokenize
from pam_core.pam.training.loss import loss_and_logits, make_batch, region_sequences, splice
from pam_core.types import Prompt
from tests.tiny_pam import picture

LABEL = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "a label"}]
LONGER = [*LABEL, {"from": "human", "value": "And its colour?"}, {"from": "gpt", "value": "helpful"}]
PROMPTS = [Prompt.at(70, 58), Prompt(box=(40, 34, 100, 82))]


def test_the_assistant_is_learned_and_the_marks_of_every_turn(tiny: PamModel) -> None:
    ids, labels = tokenize(tiny.tokenizer, LONGER)
    learned = [token for token in labels if token != IGNORED]
    said = tiny.tokenizer.decode(learned)
    assert "a label" in said and "helpful" in said and "What" not in said
    assert ids.count(IMAGE) == 1 and labels[ids.index(IMAGE)] == IGNORED
    assert said.count("<|im_start|>") == said.count("<|im_end|>") == 5


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ([], "nobody"),
        ([{"from": "robot", "value": "<image>"}], "robot"),
        ([{"from": "human", "value": "no picture"}], "<image> 0 times"),
        ([{"from": "human", "value": "<image><image>"}], "<image> 2 times"),
    ],
)
def test_conversations_that_teach_nothing_are_refused(tiny: PamModel, turns: list[dict[str, str]], said: str) -> None:
    with pytest.raises(ConversationError, match=said):
        tokenize(tiny.tokenizer, turns)


def test_gradients_reach_all_but_sam2(tiny: PamModel) -> None:
    loss, _ = loss_and_logits(
        tiny, make_batch(tiny, [LABEL, LONGER]), region_sequences(tiny, [picture()] * 2, PROMPTS)
    )
    torch.autograd.backward(loss)
    reached = {name.split(".")[0] for name, p in tiny.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {
        "perceiver",
        "image_projector",
        "semantic_projector",
        "image_newline",
        "semantic_newline",
        "language",
    }
    tiny.zero_grad()


def test_a_batch_is_the_mean_over_all_learned_tokens(tiny: PamModel) -> None:
    with torch.no_grad():
        regions = region_sequences(tiny, [picture()] * 2, PROMPTS)
        both, _ = loss_and_logits(tiny, make_batch(tiny, [LABEL, LONGER]), regions)
        total = count = 0.0
        for turns, region in zip((LABEL, LONGER), regions, strict=True):
            batch = make_batch(tiny, [turns])
            loss, _ = loss_and_logits(tiny, batch, region[None])
            learned = int((batch.labels[:, 1:] != IGNORED).sum())
            total, count = total + float(loss) * learned, count + learned
    assert float(both) == pytest.approx(total / count, rel=1e-5)


def test_a_conversation_longer_than_the_model_takes_is_cut(tiny: PamModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    monkeypatch.setattr(tiny, "config", replace(tiny.config, max_length=1050))
    with torch.no_grad():
        regions = region_sequences(tiny, [picture()], PROMPTS[:1])
        embeddings, labels, mask = splice(tiny, make_batch(tiny, [LONGER]), regions)
    assert embeddings.shape[1] == labels.shape[1] == mask.shape[1] == 1050
