"""Choosing tokens, and branches that leave when they are finished."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pam_core.errors import GenerationError
from pam_core.pam.generation import Branch, Sampling, choose, generate
from pam_core.pam.language import PrefixCache, prefill
from pam_core.pam.model import PamModel
from pam_core.questions import Generation

HIDDEN = 64


def read(model: PamModel, length: int, seed: int = 0) -> PrefixCache:
    embeddings = torch.randn(length, HIDDEN, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        return prefill(model.language, embeddings, 8)


def answers(model: PamModel, memories: list[PrefixCache], branches: list[Branch], **options: object) -> list[int]:
    """Runs to the end; how many branches took part in each step."""
    settings = {"stop_ids": (), "vocabulary": 501, **options}
    return [len(step.branches) for step in generate(model.language, memories, branches, **settings)]  # type: ignore[arg-type]


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    questions=st.lists(
        st.tuples(st.integers(0, 2), st.lists(st.integers(0, 486), min_size=1, max_size=9), st.integers(1, 5)),
        min_size=1,
        max_size=6,
    ),
)
def test_together_or_alone_makes_no_difference(
    tiny: PamModel, lengths: list[int], questions: list[tuple[int, list[int], int]]
) -> None:
    """Prefixes and questions of any length, branches of any number and in any order."""
    asked = [Branch(region % len(lengths), tuple(ids), limit) for region, ids, limit in questions]
    answers(tiny, [read(tiny, length, seed) for seed, length in enumerate(lengths)], asked)
    for branch in asked:
        alone = Branch(0, branch.question, branch.max_tokens)
        answers(tiny, [read(tiny, lengths[branch.region], branch.region)], [alone])
        assert branch.answer == alone.answer


def test_a_branch_sees_what_a_plain_run_of_qwen2_sees(tiny: PamModel) -> None:
    """Against `transformers` itself: no cache, no branches, everything in one row."""
    prefix = torch.randn(30, HIDDEN, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        branches = [Branch(0, (5, 6, 7), 6), Branch(0, (80, 9), 6)]
        answers(tiny, [prefill(tiny.language, prefix, 1)], branches)
        for branch in branches:
            said: list[int] = []
            for _ in range(6):
                row = torch.cat([prefix, tiny.embed_ids([*branch.question, *said])])[None]
                said.append(int(tiny.language(inputs_embeds=row, use_cache=False).logits[0, -1].argmax()))
            assert branch.answer == said


def test_finished_branches_leave(tiny: PamModel) -> None:
    branches = [Branch(0, (1, 2), 2), Branch(1, (3,), 5), Branch(0, (4, 4), 3), Branch(1, (1,), 0)]
    assert answers(tiny, [read(tiny, 10), read(tiny, 12)], branches) == [3, 3, 2, 1, 1]
    assert [len(branch.answer) for branch in branches] == [2, 5, 3, 0]


def test_an_answer_ends_at_a_stop_id_and_leaves_it_out(tiny: PamModel) -> None:
    free = Branch(0, (1, 2), 8)
    answers(tiny, [read(tiny, 10)], [free])
    stop = free.answer[3]
    stopped = Branch(0, (1, 2), 8)
    answers(tiny, [read(tiny, 10)], [stopped], stop_ids={stop})
    assert stopped.answer == free.answer[: free.answer.index(stop)]


def test_ids_that_the_tokenizer_does_not_know_never_answer(tiny: PamModel) -> None:
    branch = Branch(0, (1, 2), 20)
    answers(tiny, [read(tiny, 10)], [branch], vocabulary=40)
    assert max(branch.answer) < 40


@given(st.integers(0, 1000), st.floats(0.05, 1.0), st.floats(0.1, 3.0))
def test_chance_stays_within_the_likeliest(seed: int, top_p: float, temperature: float) -> None:
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(seed))
    picked = choose(logits, [(), (), ()], Sampling(temperature, top_p), torch.Generator().manual_seed(seed))
    for row, token in zip(logits, picked, strict=True):
        likely = np.sort((row / temperature).softmax(0).numpy())[::-1]
        rank = int((row > row[token]).sum())
        assert likely[:rank].sum() < top_p + 1e-6


def test_the_same_seed_is_the_same_chance(tiny: PamModel) -> None:
    def said(seed: int) -> list[int]:
        branch = Branch(0, (1, 2), 12)
        answers(tiny, [read(tiny, 10)], [branch], sampling=Sampling(temperature=2.0, seed=seed))
        return branch.answer

    assert said(1) == said(1)
    assert len({tuple(said(seed)) for seed in range(4)}) > 1


def test_repetition_costs() -> None:
    logits = torch.tensor([[3.0, 2.9, -1.0], [3.0, 2.9, -1.0]])
    assert choose(logits, [(), (0, 0)], Sampling(repetition_penalty=1.1), None) == [0, 1]
    negative = torch.tensor([[-1.0, -1.05]])
    assert choose(negative, [(0,)], Sampling(repetition_penalty=1.1), None) == [1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_tokens": 0}, "max_tokens 0"),
        ({"task_tokens": {"label": -1}}, "label -1"),
        ({"temperature": -0.1}, "temperature -0.1"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"top_p": 0.0}, "top_p 0"),
        ({"top_p": 1.5}, "top_p 1.5"),
        ({"repetition_penalty": 0.0}, "penalty 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(GenerationError, match=said):
        Generation(**settings)  # type: ignore[arg-type]
