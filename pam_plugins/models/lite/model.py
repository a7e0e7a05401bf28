"""LiteModel: the networks and the nouns put together as a RegionModel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from pam_core.errors import UnsupportedError
from pam_core.masks import Mask
from pam_core.questions import Answer, BatchDescription, Description, ImageEmbedding, Question
from pam_core.types import Picture, Prompt, Region
from pam_plugins.models.lite import captions_en
from pam_plugins.models.lite.captions_zh import Chinese
from pam_plugins.models.lite.clips import describe_clip
from pam_plugins.models.lite.facts import Facts, measure
from pam_plugins.models.lite.info import INFO
from pam_plugins.models.lite.naming import Detection, Label, Namer
from pam_plugins.models.lite.nouns import Nouns
from pam_plugins.models.lite.recognizer import Recognizer
from pam_plugins.models.lite.segmenter import Segmenter
from pam_plugins.models.lite.tracker import LiteTracker


@dataclass(frozen=True)
class LiteEmbedding:
    """What is kept of a picture: the encoder's features, the detections, and the picture itself for later crops."""

    picture: Picture
    features: torch.Tensor
    detections: tuple[Detection, ...]

    @property
    def width(self) -> int:
        return int(self.picture.shape[1])

    @property
    def height(self) -> int:
        return int(self.picture.shape[0])

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def nbytes(self) -> int:
        return self.picture.nbytes + self.features.nbytes


class LiteModel:
    """The embedded model. Holds about 80 MB of weights in float32 once loaded."""

    info = INFO

    def __init__(self, device: torch.device) -> None:
        self.nouns = Nouns.load()
        self.namer = Namer(self.nouns)
        self.chinese = Chinese(self.nouns)
        self.segmenter = Segmenter.load(device)
        self.recognizer = Recognizer.load(device, self.nouns)

    @cached_property
    def _reader(self):  # type: ignore[no-untyped-def]
        from pam_plugins.models.lite.reader import Reader

        return Reader()

    def embed(self, pictures: Sequence[Picture]) -> list[LiteEmbedding]:
        """Encode pictures for the mask decoder and detect the COCO objects in them."""
        return [
            LiteEmbedding(picture, self.segmenter.embed(picture), self.recognizer.detect(picture))
            for picture in pictures
        ]

    def segment(self, prompts: Sequence[tuple[ImageEmbedding, Prompt]]) -> list[list[Region]]:
        """One region per prompt. A mask without points or box is taken as it is."""
        for embedding, prompt in prompts:
            prompt.check(embedding.width, embedding.height)
        regions: list[list[Region]] = [
            [Region(mask=prompt.mask, model=self.info.ref, prompt=prompt)] if prompt.mask else []
            for _, prompt in prompts
        ]
        by_picture: dict[int, list[int]] = {}
        for index, (embedding, prompt) in enumerate(prompts):
            if prompt.points or prompt.box:
                by_picture.setdefault(id(embedding), []).append(index)
        for indices in by_picture.values():
            embedding = _own(prompts[indices[0]][0])
            objects = [(one.box, one.score) for one in embedding.detections]
            candidates = self.segmenter.segment(
                embedding.features, embedding.size, [prompts[index][1] for index in indices], objects
            )
            for index, candidate in zip(indices, candidates, strict=True):
                regions[index] = [
                    Region(
                        mask=Mask.from_array(candidate.mask),
                        model=self.info.ref,
                        prompt=prompts[index][1],
                        predicted_iou=round(candidate.predicted_iou, 4),
                        stability=round(candidate.stability, 4),
                    )
                ]
        return regions

    def describe(self, questions: Sequence[Question]) -> Description:
        """Answers picture by picture; the other regions in a question's context are what its region can touch."""
        return BatchDescription(questions, self._answer, self._check, key=_group)

    def _check(self, questions: Sequence[Question]) -> None:
        for question in questions:
            self.info.check(["brief" if question.clip else question.task], [question.language])

    def _answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers to the questions of one clip, or about regions of one context."""
        first = questions[0]
        if first.clip is not None:
            captions = describe_clip(first.clip, self.recognizer, self.namer, self.chinese)
            return [Answer(question, captions[question.language]) for question in questions]
        embedding = _own(first.embedding)
        regions = first.context or [question.region for question in questions if question.region is not None]
        masks = [region.mask.array for region in regions]
        facts = measure(embedding.picture, masks)
        boxes = [region.box for region in regions]
        scores = self.recognizer.classify(embedding.picture, list(zip(masks, boxes, strict=True)))
        names = [self.namer.name(look, box, embedding.detections) for look, box in zip(scores, boxes, strict=True)]
        index_of = {id(region): index for index, region in enumerate(regions)}
        read = any(question.task == "text" for question in questions)
        answers = []
        texts: dict[int, dict[str, dict[str, str]]] = {}
        for question in questions:
            index = index_of[id(question.region)]
            if index not in texts:
                written = self._reader.read(embedding.picture, boxes[index], masks[index]) if read else None
                texts[index] = self._texts(names, facts[index], index, written)
            text = texts[index][question.task][question.language]
            answers.append(Answer(question, text, {"label": round(names[index].score, 4)}))
        return answers

    def _texts(
        self, names: Sequence[Label], facts: Facts, index: int, written: str | None
    ) -> dict[str, dict[str, str]]:
        """Every text about one region, by task and language."""
        name = names[index]
        return {
            "label": {"en": captions_en.label_text(name), "zh": self.chinese.label_text(name)},
            "explanation": {"en": captions_en.explanation(name, facts), "zh": self.chinese.explanation(name, facts)},
            "brief": {"en": captions_en.brief(name, facts), "zh": self.chinese.brief(name, facts)},
            "detailed": {
                "en": captions_en.detailed(name, facts, names, written),
                "zh": self.chinese.detailed(name, facts, names, written),
            },
            "text": dict.fromkeys(("en", "zh"), written or ""),
        }

    def open_tracker(self) -> LiteTracker:
        """A tracker that prompts the mask decoder anew on every frame; no memory network."""
        return LiteTracker(self.segmenter, self.recognizer, self.info.ref)


def load(device: str) -> LiteModel:
    """Load the model on a device. Raises WeightsError."""
    return LiteModel(torch.device(device))


def _group(question: Question) -> tuple[int, ...]:
    """Questions that are answered in one step: those about one clip, or about one context of one picture."""
    if question.clip is not None:
        return (id(question.clip),)
    return id(question.embedding), id(question.context) if question.context else id(question.region)


def _own(embedding: ImageEmbedding | None) -> LiteEmbedding:
    if not isinstance(embedding, LiteEmbedding):
        raise UnsupportedError(f"Got an embedding of {type(embedding).__name__}; wanted one made by lite's `embed`.")
    return embedding
