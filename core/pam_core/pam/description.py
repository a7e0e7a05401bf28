"""Answers of PAM under way: a region or a clip is read once, and every question about it branches from there.

A step is either one prefill or one token of every running answer. Prefixes wait until their keys and values fit into
the memory budget beside those that are running.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pam_core.contracts import ModelInfo
from pam_core.errors import UnsupportedError
from pam_core.pam.chat import ChatFormat
from pam_core.pam.clips import PamClip, clip_length, clip_sequence
from pam_core.pam.generation import Branch, Decoder, Sampling
from pam_core.pam.language import PrefixCache, bytes_per_token, prefill
from pam_core.pam.model import PamModel
from pam_core.pam.prompt_tensors import BATCH
from pam_core.pam.segmentation import PamEmbedding, region_sequences
from pam_core.questions import Answer, Description, Question, TextPiece
from pam_core.tasks import CLIP_TASK, VIDEO_QUESTIONS
from pam_core.types import Prompt

DEFAULT_BUDGET = 4 * 2**30
"""Bytes for the keys and values of the prefixes that run together, besides the model itself."""

INCOMPLETE = "\ufffd"


@dataclass
class CallCounts:
    """How often the heavy parts ran: the image encoder, and the language model on a prefix."""

    encoded: int = 0
    prefills: int = 0


@dataclass(eq=False)
class _Request:
    """A question with its token ids; `streamed` is the text that its pieces hold so far."""

    question: Question
    ids: list[int]
    max_tokens: int
    branch: Branch | None = None
    streamed: str = ""

    @property
    def unread(self) -> int:
        """Tokens that may still be read for it, at most."""
        return len(self.ids) + self.max_tokens - (self.branch.read if self.branch is not None else 0)


@dataclass(eq=False)
class _Prefix:
    """A region or a clip with its requests; `cache` is None until it is read, `sequence` (L, H) what is read."""

    visual_length: int
    requests: list[_Request] = field(default_factory=list)
    sequence: Tensor | None = None
    cache: PrefixCache | None = None

    @property
    def tokens(self) -> int:
        """What its cache may grow to, without the words before the picture. Answered questions stay in it."""
        read = self.cache.length - self.cache.prefix if self.cache is not None else 0
        return self.visual_length + read + sum(request.unread for request in self.requests)


class PamDescription(Description):
    """Questions about any regions and clips, answered together. `sample` chooses the frames of a clip."""

    def __init__(
        self,
        model: PamModel,
        info: ModelInfo,
        chat: ChatFormat,
        counts: CallCounts,
        budget: int,
        sample: Callable[[int], list[int]],
    ) -> None:
        self._model, self._info, self._chat, self._counts, self._sample = model, info, chat, counts, sample
        self._budget = budget // bytes_per_token(model.config.language, model.dtype)
        self._prefixes: dict[Hashable, _Prefix] = {}
        self._requests: dict[Branch, tuple[Hashable, _Request]] = {}
        self._decoder = Decoder(model.language, chat.stop_ids, chat.vocabulary)

    def add(self, questions: Sequence[Question]) -> None:
        """Take more questions, also about what is being described. Raises UnsupportedError and PromptError."""
        requests = [self._checked(question) for question in questions]
        for request in requests:
            key = _key(request.question)
            if key not in self._prefixes:
                self._prefixes[key] = _Prefix(self._visual_length(request.question))
            prefix = self._prefixes[key]
            prefix.requests.append(request)
            if prefix.cache is not None:
                self._branch(key, prefix.cache, [request])

    def _checked(self, question: Question) -> _Request:
        generation, clip = question.generation, question.clip
        if clip is not None:
            if not isinstance(clip, PamClip):
                raise UnsupportedError(f"Got a clip of {type(clip).__name__}; wanted one cut by PAM's tracker.")
            if question.language not in VIDEO_QUESTIONS:
                raise UnsupportedError(
                    f"{self._info.name} cannot caption clips in {question.language}; it can in "
                    f"{', '.join(VIDEO_QUESTIONS)}."
                )
        else:
            if not isinstance(question.embedding, PamEmbedding):
                got = type(question.embedding).__name__
                raise UnsupportedError(f"Got an embedding of {got}; wanted one made by PAM's `embed`.")
            self._info.check([question.task], [question.language])
            _prompt(question).check(question.embedding.width, question.embedding.height)
        limit = generation.tokens_for(question.task if clip is None else CLIP_TASK)
        return _Request(question, self._chat.question_ids(question), limit)

    def cancel(self, question: Question) -> None:
        for key, prefix in list(self._prefixes.items()):
            for request in [request for request in prefix.requests if request.question is question]:
                if request.branch is not None:
                    self._decoder.remove(request.branch)
                    del self._requests[request.branch]
                self._finish(key, request)

    def step(self) -> list[TextPiece | Answer]:
        waiting = next((prefix for prefix in self._prefixes.items() if prefix[1].cache is None), None)
        if waiting is not None and self._fits(waiting[1]):
            self._prefill(*waiting)
            return []
        if not self._requests:
            return []
        return [result for branch in self._decoder.step().branches for result in self._results(branch)]

    @property
    def done(self) -> bool:
        return not self._prefixes

    def _fits(self, prefix: _Prefix) -> bool:
        """Whether a prefix may run beside those that do; one that is too large for the budget runs alone."""
        running = [other.tokens for other in self._prefixes.values() if other.cache is not None]
        around = len(self._chat.before)
        return not running or sum(running) + prefix.tokens + around * (len(running) + 1) <= self._budget

    @torch.inference_mode()
    def _prefill(self, key: Hashable, prefix: _Prefix) -> None:
        """Read a prefix, and let its requests branch from it."""
        if prefix.sequence is None:
            self._make_sequences(prefix)
        assert prefix.sequence is not None
        before = self._model.embed_ids(self._chat.before)
        reserve = sum(len(request.ids) + min(32, request.max_tokens) for request in prefix.requests)
        self._counts.prefills += 1
        prefix.cache = prefill(self._model.language, torch.cat([before, prefix.sequence]), reserve)
        prefix.sequence = None
        self._branch(key, prefix.cache, prefix.requests)

    @torch.inference_mode()
    def _make_sequences(self, prefix: _Prefix) -> None:
        """Visual tokens of a clip; of a region, with those of waiting regions of the same picture in one batch."""
        question = prefix.requests[0].question
        if isinstance(question.clip, PamClip):
            clip = question.clip
            prefix.sequence = clip_sequence(self._model, clip.sampled(self._sample(1 + len(clip.frames))))
            return
        together = [prefix] + [
            other
            for other in self._prefixes.values()
            if other is not prefix
            and other.cache is None
            and other.sequence is None
            and other.requests[0].question.clip is None
            and other.requests[0].question.embedding is question.embedding
        ]
        questions = [other.requests[0].question for other in together[:BATCH]]
        prompts = [(each.embedding, _prompt(each)) for each in questions if each.embedding is not None]
        for other, sequence in zip(together, region_sequences(self._model, prompts), strict=False):
            other.sequence = sequence

    def _branch(self, key: Hashable, cache: PrefixCache, requests: Sequence[_Request]) -> None:
        for request in requests:
            request.branch = Branch(cache, request.ids, request.max_tokens, self._sampling(request.question))
            self._requests[request.branch] = (key, request)
        self._decoder.add([request.branch for request in requests if request.branch is not None])

    def _results(self, branch: Branch) -> list[TextPiece | Answer]:
        """New text of a branch after a step, and its answer where it is finished."""
        key, request = self._requests[branch]
        text = self._chat.text(branch.answer)
        complete = text if branch.finished else text.rstrip(INCOMPLETE)
        results: list[TextPiece | Answer] = []
        if len(complete) > len(request.streamed):
            results.append(TextPiece(request.question, complete[len(request.streamed) :]))
            request.streamed = complete
        if branch.finished:
            del self._requests[branch]
            self._finish(key, request)
            results.append(Answer(request.question, text))
        return results

    def _finish(self, key: Hashable, request: _Request) -> None:
        """Drop a request, and its prefix with the last one."""
        prefix = self._prefixes[key]
        prefix.requests.remove(request)
        if not prefix.requests:
            del self._prefixes[key]

    def _sampling(self, question: Question) -> Sampling:
        generation = question.generation
        penalty = generation.repetition_penalty
        if penalty is None:
            penalty = float(self._model.generation.get("repetition_penalty", 1.0))
        return Sampling(generation.temperature, generation.top_p, penalty, generation.seed)

    def _visual_length(self, question: Question) -> int:
        if isinstance(question.clip, PamClip):
            return clip_length(self._model, len(self._sample(1 + len(question.clip.frames))))
        return self._model.visual_length


def _key(question: Question) -> Hashable:
    """Equal for questions about one region of one picture, or one clip. The objects live as long as the question."""
    if question.clip is not None:
        return id(question.clip)
    return id(question.embedding), id(question.region)


def _prompt(question: Question) -> Prompt:
    """What a region is described from: its prompt, or else its mask. Raises UnsupportedError."""
    if question.region is None:
        raise UnsupportedError("Got a question without a region; wanted one about a region or a clip.")
    return question.region.prompt or Prompt(mask=question.region.mask)
