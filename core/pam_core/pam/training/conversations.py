"""Conversations about a region as token ids and labels, exactly as the released models were trained.

A turn is `{"from": "human" or "gpt", "value": text}`; "<image>" stands where the region's visual tokens go. Knows the
tokenizer and no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

IMAGE = -200
"""Stands for the visual tokens among ids."""

IGNORED = -100
"""The label of a token that is not learned."""

SYSTEM = "You are a helpful assistant."
ROLES = {"human": "user", "gpt": "assistant"}
PLACEHOLDER = "<image>"


class ConversationError(ValueError):
    """A conversation that cannot be learned from: says what was got and what was wanted."""


def tokenize(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Mapping[str, str]]) -> tuple[list[int], list[int]]:
    """A conversation's ids and labels. Raises ConversationError.

    Learned are the assistant's turns, their headers included, and the marks of every turn: the newline and the ids
    that begin and end it.
    """
    unknown = [turn.get("from") for turn in turns if turn.get("from") not in ROLES]
    if unknown or not turns:
        raise ConversationError(f"Got turns from {unknown or 'nobody'}; wanted turns from human and gpt.")
    places = sum(turn["value"].count(PLACEHOLDER) for turn in turns)
    if places != 1:
        raise ConversationError(f"Got {PLACEHOLDER} {places} times in a conversation; wanted it once.")
    marks = {*_ids(tokenizer, "\n"), *tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])}
    ids: list[int] = []
    labels: list[int] = []
    said = [("system", SYSTEM), *((ROLES[turn["from"]], turn["value"]) for turn in turns)]
    for role, text in said:
        of_turn = _with_image(tokenizer, f"<|im_start|>{role}\n{text}<|im_end|>\n")
        ids += of_turn
        labels += [token if role == "assistant" or token in marks else IGNORED for token in of_turn]
    return ids, [IGNORED if token == IMAGE else label for token, label in zip(ids, labels, strict=True)]


def pad(rows: Sequence[tuple[list[int], list[int]]], pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of ids and labels as tensors (B, L) with a mask of what is no padding, padded on the right."""
    length = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [pad_id] * (length - len(ids)) for ids, _ in rows])
    labels = torch.tensor([labels + [IGNORED] * (length - len(labels)) for _, labels in rows])
    return ids, labels, ids != pad_id


def _with_image(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    first, *others = text.split(PLACEHOLDER)
    ids = _ids(tokenizer, first)
    for part in others:
        ids += [IMAGE, *_ids(tokenizer, part)]
    return ids


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids
