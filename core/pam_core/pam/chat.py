"""The released models' chat format: questions as token ids around the visual tokens, answers back as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pam_core.pam.model import PamModel
from pam_core.questions import Question
from pam_core.tasks import NO_HISTORY, VIDEO_QUESTIONS

BEFORE_IMAGE = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
AFTER_IMAGE = "\n{question}<|im_end|>\n<|im_start|>assistant\n"


class ChatFormat:
    """Token ids of a model's tokenizer. `questions` holds the wording of each task by language code.

    `before` are the ids in front of every picture, `stop_ids` those that end an answer, `vocabulary` how many ids the
    tokenizer knows.
    """

    def __init__(self, model: PamModel, questions: Mapping[str, Mapping[str, str]]) -> None:
        if model.tokenizer is None:
            raise ValueError("Got a model without a tokenizer; wanted one from a checkpoint.")
        self._tokenizer = model.tokenizer
        self._questions = questions
        self.before = self._ids(BEFORE_IMAGE)
        stop = model.generation.get("eos_token_id", model.config.eos_token_id)
        self.stop_ids = frozenset(stop if isinstance(stop, list) else [stop])
        self.vocabulary = len(model.tokenizer)

    def question_ids(self, question: Question) -> list[int]:
        """What stands behind the visual tokens of a region or a clip."""
        if question.clip is None:
            wording = self._questions[question.task][question.language]
        else:
            history = question.previous or NO_HISTORY[question.language]
            wording = VIDEO_QUESTIONS[question.language].format(history=history)
        return self._ids(AFTER_IMAGE.format(question=wording))

    def text(self, ids: Sequence[int]) -> str:
        """The text of an answer; U+FFFD at its end stands for a character that is not complete yet."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text.strip()

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids
        return ids
