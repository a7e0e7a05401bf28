"""Choosing tokens, and branches that leave when they are finished."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pam_core.errors import GenerationError
from pam_core.pam.generation import Branch, Decoder, Sampling, choose
from pam_core.pam.language import PrefixCache, prefill
from pam_core.pam.model import PamModel
from pam_core.questions import Generation

HIDDEN = 64


def read(model: PamModel, length: int, seed: int = 0) -> PrefixCache:
    embeddings = torch.randn(length, HIDDEN, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        return prefill(model.language, embeddings, 8)


def decode(model: PamModel, branches: list[Branch], **options: object) -> list[int]:
    """Runs to the end; how many branches took part in each step."""
    settings = {"stop_ids": (), "vocabulary": 501, **options}
    decoder = Decoder(model.language, **settings)  # type: ignore[arg-type]
    decoder.add(branches)
    counts = []
    while decoder.running:
        counts.append(len(decoder.step().branches))
    return counts


QUESTIONS = st.lists(
    st.tuples(st.integers(0, 2), st.lists(st.integers(0, 486), min_size=1, max_size=9), st.integers(1, 5)),
    min_size=1,
    max_size=6,
)


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=3), questions=QUESTIONS)
def test_together_or_alone_makes_no_difference(
    tiny: PamModel, lengths: list[int], questions: list[tuple[int, list[int], int]]
) -> None:
    """Prefixes and questions of any length, branches of any number and in any order."""
    prefixes = [read(tiny, length, seed) for seed, length in enumerate(lengths)]
    branches = [Branch(prefixes[number % len(lengths)], tuple(ids), limit) for number, ids, limit in questions]
    decode(tiny, branches)
    for (number, ids, limit), branch in zip(questions, branches, strict=True):
        seed = number % len(lengths)
        alone = Branch(read(tiny, lengths[seed], seed), tuple(ids), limit)
        decode(tiny, [alone])
        assert branch.answer == alone.answer


@given(questions=QUESTIONS, order=st.lists(st.tuples(st.sampled_from("ars"), st.integers(0, 5)), max_size=30))
def test_branches_join_and_leave_between_steps_and_answer_as_if_alone(
    tiny: PamModel, questions: list[tuple[int, list[int], int]], order: list[tuple[str, int]]
) -> None:
    prefixes = [read(tiny, 8 + seed, seed) for seed in range(3)]
    branches = [Branch(prefixes[number], tuple(ids), limit) for number, ids, limit in questions]
    decoder = Decoder(tiny.language, (), 501)
    waiting, removed = list(branches), []
    for action, number in order:
        if action == "a" and waiting:
            decoder.add([waiting.pop(number % len(waiting))])
        elif action == "r" and decoder.running:
            removed.append(decoder.running[number % len(decoder.running)])
            decoder.remove(removed[-1])
        elif action == "s" and decoder.running:
            decoder.step()
    decoder.add(waiting)
    while decoder.running:
        decoder.step()
    for (number, ids, limit), branch in zip(questions, branches, strict=True):
        alone = Branch(read(tiny, 8 + number, number), tuple(ids), limit)
        decode(tiny, [alone])
        whole = not any(branch is other for other in removed)
        assert branch.answer == (alone.answer if whole else alone.answer[: len(branch.answer)])


def test_a_branch_reads_what_a_plain_run_of_qwen2_reads(tiny: PamModel) -> None:
    """Against `transformers` itself: no cache, no branches, everything in one row."""
    prefix = torch.randn(30, HIDDEN, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        shared = prefill(tiny.language, prefix, 1)
        branches = [Branch(shared, (5, 6, 7), 6), Branch(shared, (80, 9), 6)]
        decode(tiny, branches)
        for branch in branches:
            answer: list[int] = []
            for _ in range(6):
                row = torch.cat([prefix, tiny.embed_ids([*branch.question, *answer])])[None]
                answer.append(int(tiny.language(inputs_embeds=row, use_cache=False).logits[0, -1].argmax()))
            assert branch.answer == answer


def test_finished_branches_leave(tiny: PamModel) -> None:
    one, other = read(tiny, 10), read(tiny, 12)
    branches = [Branch(one, (1, 2), 2), Branch(other, (3,), 5), Branch(one, (4, 4), 3), Branch(other, (1,), 0)]
    assert decode(tiny, branches) == [3, 3, 2, 1, 1]
    assert [len(branch.answer) for branch in branches] == [2, 5, 3, 0]


def test_an_answer_ends_at_a_stop_id_and_leaves_it_out(tiny: PamModel) -> None:
    free = Branch(read(tiny, 10), (1, 2), 8)
    decode(tiny, [free])
    stop = free.answer[3]
    stopped = Branch(read(tiny, 10), (1, 2), 8)
    decode(tiny, [stopped], stop_ids={stop})
    assert stopped.answer == free.answer[: free.answer.index(stop)]


def test_ids_that_the_tokenizer_does_not_know_never_answer(tiny: PamModel) -> None:
    branch = Branch(read(tiny, 10), (1, 2), 20)
    decode(tiny, [branch], vocabulary=40)
    assert max(branch.answer) < 40


def rows(tiny: PamModel, sampling: Sampling, *answers: list[int], seed: int = 0) -> list[Branch]:
    """Branches that have answered so far."""
    branches = [Branch(read(tiny, 2), (1,), 9, sampling, answer) for answer in answers]
    for branch in branches:
        branch.random = torch.Generator().manual_seed(seed)
    return branches


@given(st.integers(0, 1000), st.floats(0.05, 1.0), st.floats(0.1, 3.0))
def test_sampling_stays_within_the_likeliest(tiny: PamModel, seed: int, top_p: float, temperature: float) -> None:
    logits = torch.randn(3, 20, generator=torch.Generator().manual_seed(seed))
    picked = choose(logits, rows(tiny, Sampling(temperature, top_p), [], [], [], seed=seed))
    for row, token in zip(logits, picked, strict=True):
        likely = np.sort((row / temperature).softmax(0).numpy())[::-1]
        rank = int((row > row[token]).sum())
        assert likely[:rank].sum() < top_p + 1e-6


def test_the_same_seed_gives_the_same_answer_whatever_is_decoded_beside_it(tiny: PamModel) -> None:
    def answer(seed: int, company: int = 0) -> list[int]:
        sampling = Sampling(temperature=2.0, seed=seed)
        branch = Branch(read(tiny, 10), (1, 2), 12, sampling)
        others = [Branch(read(tiny, 9, number), (3,), 5, sampling) for number in range(company)]
        decode(tiny, [*others, branch])
        return branch.answer

    assert answer(1) == answer(1) == answer(1, company=3)
    assert len({tuple(answer(seed)) for seed in range(4)}) > 1


def test_repetition_costs(tiny: PamModel) -> None:
    logits = torch.tensor([[3.0, 2.9, -1.0], [3.0, 2.9, -1.0]])
    assert choose(logits, rows(tiny, Sampling(repetition_penalty=1.1), [], [0, 0])) == [0, 1]
    negative = torch.tensor([[-1.0, -1.05]])
    assert choose(negative, rows(tiny, Sampling(repetition_penalty=1.1), [0])) == [1]


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
