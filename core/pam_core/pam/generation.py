"""Generates answers to many questions about many regions at once.

Each region is a prefix that was read once (`PrefixCache`); each question branches from it. All branches advance
together, one token a step, and those that are finished leave. Greedy by default, and then an answer does not depend
on what is generated beside it. Knows token ids, not what they say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

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


@dataclass
class Branch:
    """One question about one region, by its number. `answer` fills up with ids; the end-of-text id is left out."""

    region: int
    question: Sequence[int]
    max_tokens: int
    answer: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class DecodeStep:
    """What one step brought: the branches that were still running, their new ids, and the logits these came from."""

    branches: Sequence[Branch]
    ids: Sequence[int]
    logits: Tensor


@torch.inference_mode()
def generate(
    language: Qwen2ForCausalLM,
    regions: Sequence[PrefixCache],
    branches: Sequence[Branch],
    *,
    stop_ids: Collection[int],
    vocabulary: int,
    sampling: Sampling = Sampling(),
) -> Iterator[DecodeStep]:
    """Answer every branch, a token of each running one a step.

    `vocabulary` is how many ids the tokenizer knows; released embeddings have rows beyond it, which never answer.
    """
    embed = language.model.embed_tokens
    device = embed.weight.device
    chance = torch.Generator(device).manual_seed(sampling.seed) if sampling.temperature > 0 else None
    asked = sorted((branch for branch in branches if branch.max_tokens > 0), key=lambda branch: branch.region)
    running = [_Running(branch, number, branch.question) for number, branch in enumerate(asked)]
    while running:
        grouped = [(regions[region], list(rows)) for region, rows in groupby(running, lambda row: row.branch.region)]
        owners = [torch.cat([torch.full((len(row.fed),), row.number) for row in rows]) for _, rows in grouped]
        positions = [
            region.prefix + row.read + torch.arange(len(row.fed)) for region, rows in grouped for row in rows
        ]
        hidden = extend(
            language,
            [region for region, _ in grouped],
            owners,
            embed(torch.tensor([token for row in running for token in row.fed], device=device)),
            torch.cat(positions).to(device),
        )
        last = torch.tensor([len(row.fed) for row in running], device=device).cumsum(0) - 1
        logits = language.lm_head(hidden[last])[:, :vocabulary]
        chosen = choose(logits, [row.branch.answer for row in running], sampling, chance)
        for row, token in zip(running, chosen, strict=True):
            row.advance(token, stop_ids)
        yield DecodeStep([row.branch for row in running], chosen, logits)
        running = [row for row in running if row.fed]


@dataclass
class _Running:
    """A branch that is not finished: how much of it the model has read, and what it reads next."""

    branch: Branch
    number: int
    fed: Sequence[int]
    read: int = 0

    def advance(self, token: int, stop_ids: Collection[int]) -> None:
        self.read += len(self.fed)
        if token not in stop_ids:
            self.branch.answer.append(token)
        done = token in stop_ids or len(self.branch.answer) == self.branch.max_tokens
        self.fed = () if done else (token,)


def choose(
    logits: Tensor, answers: Sequence[Sequence[int]], sampling: Sampling, chance: torch.Generator | None
) -> list[int]:
    """The next id of each row of logits (N, V), after what each row has already answered."""
    scores = logits.float()
    if sampling.repetition_penalty != 1.0:
        scores = scores.clone()
        for row, answer in enumerate(answers):
            said = torch.tensor(sorted(set(answer)), dtype=torch.int64, device=scores.device)
            old = scores[row, said]
            scores[row, said] = torch.where(
                old > 0, old / sampling.repetition_penalty, old * sampling.repetition_penalty
            )
    if chance is None:
        return scores.argmax(dim=-1).tolist()
    likely, order = (scores / sampling.temperature).softmax(dim=-1).sort(dim=-1, descending=True)
    before = likely.cumsum(dim=-1) - likely
    likely[before >= sampling.top_p] = 0  # the likeliest always stays
    picked = torch.multinomial(likely, 1, generator=chance)
    return order.gather(1, picked)[:, 0].tolist()
