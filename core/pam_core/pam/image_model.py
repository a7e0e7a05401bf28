"""PAM on pictures: regions from prompts, and texts for many regions and questions in one call.

A picture is encoded once, a region is read by the language model once, and every question in every language branches
from there. Regions go through in groups that fit a memory budget. Knows neither plugins nor files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pam_core.contracts import ModelInfo
from pam_core.masks import Mask
from pam_core.pam.generation import Branch, Sampling, generate
from pam_core.pam.language import PrefixCache, bytes_per_token, prefill
from pam_core.pam.model import PamModel
from pam_core.pam.prompt_tensors import prompt_batches
from pam_core.pam.vision import Decoded, ImageFeatures, full_size, preprocess, stability
from pam_core.questions import Generation, ImageEmbedding
from pam_core.types import Picture, Prompt, Region, language_codes

DEFAULT_BUDGET = 4 * 2**30
"""Bytes for the keys and values of the regions that are described together, besides the model itself."""

BEFORE_IMAGE = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
AFTER_IMAGE = "\n{question}<|im_end|>\n<|im_start|>assistant\n"
"""The released models' prompt, before and after the visual tokens."""

UNFINISHED = "\ufffd"

OnText = Callable[[int, str, str, str], None]
"""Told of texts while they grow: the region's number, the task, the language, and what was added."""


@dataclass(frozen=True)
class PamEmbedding:
    """What is kept of a picture: the encoder's features, 17 MB at full size in float32."""

    width: int
    height: int
    features: ImageFeatures

    @property
    def nbytes(self) -> int:
        return self.features.nbytes


@dataclass
class CallCounts:
    """How often the heavy parts ran: the image encoder, and the language model on a region's prefix."""

    encoded: int = 0
    prefills: int = 0


@dataclass(frozen=True)
class _Question:
    region: int
    task: str
    language: str
    ids: tuple[int, ...]
    max_tokens: int


@dataclass
class _Streamed:
    """An answer of which the beginning was already told."""

    told: str = ""

    def fresh(self, text: str, finished: bool) -> str:
        """What is new in `text`; while it grows, only whole characters."""
        whole = text if finished else text.rstrip(UNFINISHED)
        new = whole[len(self.told) :]
        self.told += new
        return new


class PamImageModel:
    """A `RegionModel`. `questions` holds, by task and language, the words put to the language model."""

    def __init__(
        self,
        model: PamModel,
        info: ModelInfo,
        questions: Mapping[str, Mapping[str, str]],
        budget: int = DEFAULT_BUDGET,
    ) -> None:
        if model.tokenizer is None:
            raise ValueError("Got a model without a tokenizer; wanted one from a checkpoint.")
        self.model = model
        self.tokenizer = model.tokenizer
        self.info = info
        self.questions = questions
        self.budget = budget
        self.work = CallCounts()
        self._before = self._ids(BEFORE_IMAGE)

    @torch.inference_mode()
    def embed(self, picture: Picture) -> PamEmbedding:
        height, width = picture.shape[:2]
        self.work.encoded += 1
        pixels = preprocess(picture, self.model.config.vision.image_size)
        return PamEmbedding(width, height, self.model.vision.encode(pixels[None]))

    @torch.inference_mode()
    def segment(self, embedding: ImageEmbedding, prompts: Sequence[Prompt]) -> list[Region]:
        for prompt in prompts:
            prompt.check(embedding.width, embedding.height)
        found: dict[int, Region] = {}
        for indices, decoded, logits, presence in self._decode(embedding, prompts):
            masks = (full_size(logits, embedding.height, embedding.width) > 0).cpu().numpy()
            stable = stability(logits[:, 0]).tolist()
            for row, index in enumerate(indices):
                prompt = prompts[index]
                given = prompt.mask if not prompt.points and prompt.box is None else None
                found[index] = Region(
                    mask=given or Mask.from_array(masks[row, 0]),
                    model=self.info.ref,
                    prompt=prompt,
                    predicted_iou=None if given else float(decoded.ious[row, 0]),
                    stability=None if given else stable[row],
                    presence=float(presence[row, 0].sigmoid()),
                )
        return [found[index] for index in range(len(prompts))]

    def describe(
        self,
        embedding: ImageEmbedding,
        regions: Sequence[Region],
        tasks: Sequence[str],
        languages: Sequence[str] = ("en",),
        generation: Generation = Generation(),
        on_text: OnText | None = None,
    ) -> list[Region]:
        """The same regions with texts. `on_text` is told of them while they grow."""
        pairs = [(embedding, region) for region in regions]
        return self.describe_many(pairs, tasks, languages, generation, on_text)

    @torch.inference_mode()
    def describe_many(
        self,
        regions: Sequence[tuple[ImageEmbedding, Region]],
        tasks: Sequence[str],
        languages: Sequence[str] = ("en",),
        generation: Generation = Generation(),
        on_text: OnText | None = None,
    ) -> list[Region]:
        """Regions of any number of pictures, each with its picture's embedding -> the same regions with texts."""
        codes = language_codes(languages)
        self.info.check(tasks, codes)
        asked = [
            (task, code, self._ids(AFTER_IMAGE.format(question=self.questions[task][code])))
            for task in tasks
            for code in codes
        ]
        prompts = [_prompt_of(embedding, region) for embedding, region in regions]
        described: list[Region] = []
        visual = self.model.visual_length
        for group in self.groups([visual] * len(regions), [(len(i), generation.tokens_for(t)) for t, _, i in asked]):
            reserve = sum(len(ids) + min(32, generation.tokens_for(task)) for task, _, ids in asked)
            memories = [
                self._read(embeds, reserve) for embeds in self._visual([(regions[i][0], prompts[i]) for i in group])
            ]
            questions = [
                _Question(row, task, code, tuple(ids), generation.tokens_for(task))
                for row in range(len(group))
                for task, code, ids in asked
            ]
            texts = self._answer(memories, questions, generation, group.start, on_text)
            described += [regions[index][1].with_texts(texts[index - group.start]) for index in group]
        return described

    def _answer(
        self,
        memories: Sequence[PrefixCache],
        questions: Sequence[_Question],
        generation: Generation,
        first: int,
        on_text: OnText | None,
    ) -> list[dict[str, dict[str, str]]]:
        branches = [Branch(question.region, question.ids, question.max_tokens) for question in questions]
        asked = {id(branch): question for branch, question in zip(branches, questions, strict=True)}
        streamed = {id(branch): _Streamed() for branch in branches}

        def tell(branch: Branch, finished: bool) -> None:
            fresh = streamed[id(branch)].fresh(self.text(branch.answer), finished)
            question = asked[id(branch)]
            if fresh and on_text is not None:
                on_text(first + question.region, question.task, question.language, fresh)

        for step in generate(
            self.model.language,
            memories,
            branches,
            stop_ids=self.stop_ids,
            vocabulary=len(self.tokenizer),
            sampling=self._sampling(generation),
        ):
            if on_text is not None:
                for branch in step.branches:
                    tell(branch, finished=False)
        for branch in branches:
            tell(branch, finished=True)
        texts: list[dict[str, dict[str, str]]] = [{} for _ in memories]
        for branch, question in zip(branches, questions, strict=True):
            texts[question.region].setdefault(question.task, {})[question.language] = self.text(branch.answer)
        return texts

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end an answer."""
        said = self.model.generation.get("eos_token_id", self.model.config.eos_token_id)
        return frozenset(said if isinstance(said, list) else [said])

    def text(self, ids: Sequence[int]) -> str:
        """What an answer says."""
        said: str = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return said.strip()

    def _sampling(self, generation: Generation) -> Sampling:
        penalty = generation.repetition_penalty
        if penalty is None:
            penalty = float(self.model.generation.get("repetition_penalty", 1.0))
        return Sampling(generation.temperature, generation.top_p, penalty, generation.seed)

    def _decode(
        self, embedding: ImageEmbedding, prompts: Sequence[Prompt]
    ) -> Iterator[tuple[list[int], Decoded, Tensor, Tensor]]:
        assert isinstance(embedding, PamEmbedding)
        size = self.model.config.vision.image_size
        for indices, tensors in prompt_batches(prompts, embedding.width, embedding.height, size):
            yield indices, *self.model.vision.answer_prompts(embedding.features, tensors)

    def _visual(self, regions: Sequence[tuple[ImageEmbedding, Prompt]]) -> Iterator[Tensor]:
        """Each region as the language model reads it, after the words that stand before every picture (L, H)."""
        before = self.model.embed_ids(self._before)
        by_picture: dict[int, list[int]] = {}
        for index, (embedding, _) in enumerate(regions):
            by_picture.setdefault(id(embedding), []).append(index)
        found: dict[int, Tensor] = {}
        for group in by_picture.values():
            for rows, decoded, _, _ in self._decode(regions[group[0]][0], [regions[index][1] for index in group]):
                sequences = self.model.project(*self.model.perceive(decoded))
                found.update((group[row], sequence) for row, sequence in zip(rows, sequences, strict=True))
        for index in range(len(regions)):
            yield torch.cat([before, found.pop(index)])

    def _read(self, embeddings: Tensor, reserve: int) -> PrefixCache:
        self.work.prefills += 1
        return prefill(self.model.language, embeddings, reserve)

    def groups(self, visual: Sequence[int], asked: Sequence[tuple[int, int]]) -> Iterator[range]:
        """Which prefixes, of so many visual tokens each, fit the budget together; one that is too long goes alone.

        `asked` holds the lengths of each question and of its longest answer.
        """
        budget = self.budget // bytes_per_token(self.model.config.language, self.model.dtype)
        around = len(self._before) + sum(question + answer for question, answer in asked)
        start = used = 0
        for index, tokens in enumerate(visual):
            if index > start and used + tokens + around > budget:
                yield range(start, index)
                start, used = index, 0
            used += tokens + around
        if visual:
            yield range(start, len(visual))

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids


def _prompt_of(embedding: ImageEmbedding, region: Region) -> Prompt:
    """What a region is described from: the prompt it came of, or else its mask."""
    prompt = region.prompt or Prompt(mask=region.mask)
    prompt.check(embedding.width, embedding.height)
    return prompt
