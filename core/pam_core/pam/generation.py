"""Decode answers to many questions about many prefixes at once.

Each region is a prefix that was read once (`PrefixCache`); each question branches from it. All branches advance
together, one token a step; they join between steps, and leave when they are finished. An answer does not depend on
what is decoded beside it. Knows token ids, not texts.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM

from pam_core.pam.language import PrefixCache, extend


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. At temperature 0 the likeliest, always; the rest is then without effect but for
    `repetition_penalty`, which divides the odds of what was already generated (Keskar et al., 2019).
    """

    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0


GREEDY = Sampling()


@dataclass(eq=False)
class Branch:
    """One question about one prefix. `answer` fills up with ids, without the one that ends it.

    `unread` are the ids that the model reads next, after `read` others; a finished branch has none.
    """

    prefix: PrefixCache
    question: Sequence[int]
    max_tokens: int
    sampling: Sampling = GREEDY
    answer: list[int] = field(default_factory=list)
    unread: Sequence[int] = field(init=False)
    read: int = field(default=0, init=False)
    number: int = field(default=-1, init=False)
    random: torch.Generator | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.unread = self.question if self.max_tokens > 0 else ()

    @property
    def finished(self) -> bool:
        return not self.unread

    def advance(self, token: int, stop_ids: Collection[int]) -> None:
        """Take the next token of the answer."""
        self.read += len(self.unread)
        if token not in stop_ids:
            self.answer.append(token)
        done = token in stop_ids or len(self.answer) == self.max_tokens
        self.unread = () if done else (token,)


@dataclass(frozen=True)
class DecodeStep:
    """The branches that ran, their new ids, and the logits (N, vocabulary) these were chosen from."""

    branches: Sequence[Branch]
    ids: Sequence[int]
    logits: Tensor


class Decoder:
    """Branches under way.

    `vocabulary` is how many ids the tokenizer knows; released embeddings have rows beyond it, which never answer.
    """

    def __init__(self, language: Qwen2ForCausalLM, stop_ids: Collection[int], vocabulary: int) -> None:
        self.language, self.stop_ids, self.vocabulary = language, stop_ids, vocabulary
        self.running: list[Branch] = []
        self._numbers = itertools.count()

    def add(self, branches: Sequence[Branch]) -> None:
        """Let branches join with the next step; those that may have no token are finished already."""
        for branch in branches:
            branch.number = next(self._numbers)
            if branch.sampling.temperature > 0:
                device = self.language.model.embed_tokens.weight.device
                branch.random = torch.Generator(device).manual_seed(branch.sampling.seed)
            if not branch.finished:
                self.running.append(branch)

    def remove(self, branch: Branch) -> None:
        """Stop decoding a branch. One that is finished or unknown is no error."""
        self.running = [other for other in self.running if other is not branch]

    @torch.inference_mode()
    def step(self) -> DecodeStep:
        """One token of every running branch. Raises ValueError where none is running."""
        if not self.running:
            raise ValueError("Got a step without a running branch; wanted one at least.")
        by_prefix: dict[int, list[Branch]] = {}
        for branch in self.running:
            by_prefix.setdefault(id(branch.prefix), []).append(branch)
        rows = [branch for group in by_prefix.values() for branch in group]  # branches of one prefix side by side
        embed = self.language.model.embed_tokens
        device = embed.weight.device
        hidden = extend(
            self.language,
            [group[0].prefix for group in by_prefix.values()],
            [
                torch.cat([torch.full((len(branch.unread),), branch.number) for branch in group])
                for group in by_prefix.values()
            ],
            embed(torch.tensor([token for branch in rows for token in branch.unread], device=device)),
            torch.cat([branch.prefix.prefix + branch.read + torch.arange(len(branch.unread)) for branch in rows]).to(
                device
            ),
        )
        last = torch.tensor([len(branch.unread) for branch in rows], device=device).cumsum(0) - 1
        logits: Tensor = self.language.lm_head(hidden[last])[:, : self.vocabulary]
        ids = choose(logits, rows)
        for branch, token in zip(rows, ids, strict=True):
            branch.advance(token, self.stop_ids)
        self.running = [branch for branch in self.running if not branch.finished]
        return DecodeStep(rows, ids, logits)


def choose(logits: Tensor, branches: Sequence[Branch]) -> list[int]:
    """The next id of each branch from its row of logits (N, V)."""
    scores = logits.float()
    ids: list[int] = scores.argmax(dim=-1).tolist()
    for row, branch in enumerate(branches):
        if branch.sampling != GREEDY:
            ids[row] = _sample(scores[row], branch)
    return ids


def _sample(scores: Tensor, branch: Branch) -> int:
    """The next id by the branch's own sampling, from scores (V,)."""
    sampling = branch.sampling
    if sampling.repetition_penalty != 1.0 and branch.answer:
        known = torch.tensor(sorted(set(branch.answer)), dtype=torch.int64, device=scores.device)
        old, penalty = scores[known], sampling.repetition_penalty
        scores = scores.index_copy(0, known, torch.where(old > 0, old / penalty, old * penalty))
    if sampling.temperature == 0:
        return int(scores.argmax())
    probabilities, order = (scores / sampling.temperature).softmax(dim=-1).sort(descending=True)
    before = probabilities.cumsum(dim=-1) - probabilities
    probabilities[before >= sampling.top_p] = 0  # the likeliest always stays
    return int(order[torch.multinomial(probabilities, 1, generator=branch.random)])
