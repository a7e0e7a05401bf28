"""The loss of PAM on a batch of conversations about regions. SAM 2 stays frozen; everything behind it learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pam_core.pam.model import PamModel
from pam_core.pam.prompt_tensors import prompt_batches
from pam_core.pam.training.conversations import IGNORED, IMAGE, pad, tokenize
from pam_core.pam.vision import preprocess
from pam_core.types import Picture, Prompt


@dataclass(frozen=True)
class TrainingBatch:
    """Token ids with `IMAGE` where a region goes (B, L), their labels, and a mask of what is no padding."""

    ids: Tensor
    labels: Tensor
    mask: Tensor


def make_batch(model: PamModel, conversations: Sequence[Sequence[Mapping[str, str]]]) -> TrainingBatch:
    """Conversations, one about each region, as a batch. Raises ConversationError."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise ValueError("Got a model without a tokenizer; wanted one from a checkpoint.")
    return TrainingBatch(*pad([tokenize(tokenizer, turns) for turns in conversations], tokenizer.pad_token_id))


def region_sequences(model: PamModel, pictures: Sequence[Picture], prompts: Sequence[Prompt]) -> Tensor:
    """Each picture's region as the language model reads it (B, V, H). Gradients reach the perceiver and on."""
    size = model.config.vision.image_size
    sequences = []
    for picture, prompt in zip(pictures, prompts, strict=True):
        height, width = picture.shape[:2]
        with torch.no_grad():
            features = model.vision.encode(preprocess(picture, size)[None])
            ((_, tensors),) = prompt_batches([prompt], width, height, size)
            decoded, _, _ = model.vision.answer_prompts(features, tensors)
        sequences.append(model.project(*model.perceive(decoded)))
    return torch.cat(sequences)


def loss_and_logits(model: PamModel, batch: TrainingBatch, regions: Tensor) -> tuple[Tensor, Tensor]:
    """Next-token cross-entropy, averaged over all learned tokens of the batch; and the logits (B, L + V - 1, ids)."""
    embeddings, labels, mask = splice(model, batch, regions)
    out = model.language(inputs_embeds=embeddings, attention_mask=mask, labels=labels, use_cache=False)
    return out.loss, out.logits


def splice(model: PamModel, batch: TrainingBatch, regions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Put regions (B, V, H) where `IMAGE` stands: embeddings (B, L + V - 1, H), labels and mask, cut to the longest
    the model takes. Padding is zeros.
    """
    rows, labels, masks = [], [], []
    for ids, label, mask, region in zip(batch.ids, batch.labels, batch.mask, regions, strict=True):
        at = int((ids == IMAGE).nonzero()[0, 0])
        text = model.embed_ids(ids.masked_fill(ids == IMAGE, 0)) * mask[:, None].to(model.device, model.dtype)
        rows.append(torch.cat([text[:at], region, text[at + 1 :]]))
        labels.append(torch.cat([label[:at], label.new_full((len(region),), IGNORED), label[at + 1 :]]))
        masks.append(torch.cat([mask[:at], mask.new_ones(len(region)), mask[at + 1 :]]))
    longest = model.config.max_length
    stacked = (torch.stack(part)[:, :longest].to(model.device) for part in (rows, labels, masks))
    embeddings, spliced, mask = stacked
    return embeddings, spliced, mask
