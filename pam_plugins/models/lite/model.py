"""LiteModel: the networks and the nouns put together as a RegionModel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch

from pam_core.contracts import Generation, ImageEmbedding, Picture, UnsupportedError
from pam_core.masks import Mask
from pam_core.types import Prompt, Region, language_codes
from pam_core.video import Clip
from pam_plugins.models.lite import words_en
from pam_plugins.models.lite.clips import describe_clips
from pam_plugins.models.lite.facts import measure
from pam_plugins.models.lite.info import INFO
from pam_plugins.models.lite.naming import Detection, Namer
from pam_plugins.models.lite.nouns import Nouns
from pam_plugins.models.lite.recognizer import Recognizer
from pam_plugins.models.lite.segmenter import Segmenter
from pam_plugins.models.lite.tracker import LiteTracker
from pam_plugins.models.lite.words_zh import Chinese

MAX_ALTERNATIVES = 3


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

    def embed(self, picture: Picture) -> LiteEmbedding:
        """Encode a picture for the mask decoder and detect the COCO objects in it."""
        return LiteEmbedding(picture, self.segmenter.embed(picture), self.recognizer.detect(picture))

    def segment(self, embedding: ImageEmbedding, prompts: Sequence[Prompt]) -> list[Region]:
        """One region per prompt. A mask without points or box is taken as it is."""
        return [found[0] for found in self.alternatives(embedding, prompts, 1)]

    def alternatives(
        self, embedding: ImageEmbedding, prompts: Sequence[Prompt], keep: int = MAX_ALTERNATIVES
    ) -> list[list[Region]]:
        """For each prompt the regions it may mean, the best first: up to three for a single click, else one."""
        seen = _own(embedding)
        for prompt in prompts:
            prompt.check(seen.width, seen.height)
        asked = [i for i, prompt in enumerate(prompts) if prompt.points or prompt.box]
        objects = [(one.box, one.score) for one in seen.detections]
        found = self.segmenter.segment(seen.features, seen.size, [prompts[i] for i in asked], keep, objects)
        regions: list[list[Region]] = [
            [Region(mask=prompt.mask, model=self.info.ref, prompt=prompt)] if prompt.mask else []
            for prompt in prompts
        ]
        for index, candidates in zip(asked, found, strict=True):
            regions[index] = [
                Region(
                    mask=Mask.from_array(candidate.mask),
                    model=self.info.ref,
                    prompt=prompts[index],
                    predicted_iou=round(candidate.predicted_iou, 4),
                    stability=round(candidate.stability, 4),
                )
                for candidate in candidates
            ]
        return regions

    def describe(
        self,
        embedding: ImageEmbedding,
        regions: Sequence[Region],
        tasks: Sequence[str],
        languages: Sequence[str] = ("en",),
        generation: Generation = Generation(),
    ) -> list[Region]:
        """Texts for regions of one picture; the others of the same call are what a region can touch or lie on."""
        codes = language_codes(languages)
        self.info.check(tasks, codes)
        seen = _own(embedding)
        if not regions:
            return []
        masks = [region.mask.array for region in regions]
        facts = measure(seen.picture, masks)
        boxes = [region.box for region in regions]
        looks = self.recognizer.look(seen.picture, list(zip(masks, boxes, strict=True)))
        names = [self.namer.name(look, box, seen.detections) for look, box in zip(looks, boxes, strict=True)]
        read = [
            self._reader.read(seen.picture, region.box, mask) if "text" in tasks else None
            for region, mask in zip(regions, masks, strict=True)
        ]
        described = []
        for region, name, fact, text in zip(regions, names, facts, read, strict=True):
            answers = {
                "label": {"en": words_en.label(name), "zh": self.chinese.label(name)},
                "explanation": {
                    "en": words_en.explanation(name, fact),
                    "zh": self.chinese.explanation(name, fact),
                },
                "brief": {"en": words_en.brief(name, fact), "zh": self.chinese.brief(name, fact)},
                "detailed": {
                    "en": words_en.detailed(name, fact, names, text),
                    "zh": self.chinese.detailed(name, fact, names, text),
                },
                "text": {"en": text or "", "zh": text or ""},
            }
            texts = {task: {code: answers[task][code] for code in codes} for task in tasks}
            described.append(region.with_texts(texts, {"label": round(name.score, 4)}))
        return described

    def open_tracker(self) -> LiteTracker:
        """A tracker that prompts the mask decoder anew on every frame; no memory network."""
        return LiteTracker(self.segmenter, self.recognizer, self.info.ref)

    def describe_clips(
        self,
        clips: Sequence[Clip],
        languages: Sequence[str] = ("en",),
        previous: Sequence[Mapping[str, str]] = (),
        generation: Generation = Generation(),
    ) -> list[dict[str, str]]:
        """A sentence a clip: one noun for all of it, and its measured motion. Earlier captions change nothing."""
        return describe_clips(clips, languages, self.info, self.recognizer, self.namer, self.chinese)


@lru_cache(maxsize=2)
def load(device: torch.device) -> LiteModel:
    """The model on a device, one for the process however the device was named. Raises WeightsError."""
    return LiteModel(device)


def _own(embedding: ImageEmbedding) -> LiteEmbedding:
    if not isinstance(embedding, LiteEmbedding):
        raise UnsupportedError(f"Got an embedding of {type(embedding).__name__}; wanted one made by lite's `embed`.")
    return embedding
