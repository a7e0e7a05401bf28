"""Choose a region's label, a WordNet noun with a score, from the outputs of three networks.

An ImageNet classifier takes a crop around the region, a COCO detector the whole picture, and the stuff head knows
"stuff" (sky, grass, water ...). Their outputs are combined into one distribution over all classes; a noun's share of
it is the sum over the classes that are the noun or a kind of it. The label is the noun with the largest expected
reward: its share times its reward for being right, which grows with how specific it is. So "dog" wins where breeds
compete, and "animal" only where nothing more specific is likely (Deng et al., "Hedging your bets", CVPR 2012). The
constants were set on the development clicks of tests/data/clicks.jsonl.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pam_core.masks import Box
from pam_plugins.models.lite.networks.stuff_head import CLASSES
from pam_plugins.models.lite.nouns import PERSON, Noun, Nouns

FloatArray = npt.NDArray[np.float64]

MIN_EXPECTED_REWARD = 0.2
"""A label needs at least this; the less specific a noun is, the larger its share must be."""

IMAGENET_REWARD = 1.0
OTHER_CLASS_REWARD = 0.97
HYPERNYM_REWARD = 0.7
BROAD_REWARD = 0.4
"""Rewards of a right label: an ImageNet class; a class of the other networks, or a basic-level noun ("bird"); another
hypernym of those ("game bird"); a broad noun ("animal")."""

LOG_ODDS_SCALE = 0.5
"""Calibration: the log odds that a label is right are this times the log odds of its share, since the networks are
overconfident (fitted to the development clicks, by cross-validation over photographs)."""

MIN_DETECTION_IOU = 0.5
FULL_DETECTION_IOU = 0.8
"""A detection counts from the first IoU of its box and the region's on, and fully from the second."""

MIN_DETECTION_SCORE = 0.3
SURE_DETECTION_SCORE = 0.65
MAX_DETECTION_SHARE = 0.95
"""A detection's share of the distribution grows from 0 at the first score to the maximum near the second."""

BREADTH = 0.03
"""A detected class's own weight, against the probabilities of its ImageNet hyponyms: "boat" against "canoe"."""

EXTRA_HYPONYMS = {
    "n03147509": ("n03063599", "n07920052"),  # cup: coffee mug, espresso
    "n04592099": ("n03443371", "n07892512", "n02823750"),  # wine glass: goblet, red wine, beer glass
    "n02870092": ("n07248320", "n06596364", "n02840245"),  # book: book jacket, comic book, binder
    "n02876657": ("n07892512",),  # bottle: red wine
}
"""ImageNet classes that the detector gives a COCO class to, though they are no kind of it in WordNet."""

GARMENTS = ("n03051540", "n02739668")
"""Clothing and armor. A region that fits a person's box is the wearer, even if the classifier gives a garment."""


@dataclass(frozen=True)
class Detection:
    """One detected object: box xyxy in pixels, score in [0, 1], synset of its COCO class."""

    box: Box
    score: float
    synset: str


@dataclass(frozen=True)
class ClassScores:
    """Class probabilities of one region: `things` (1000,) of the ImageNet classes, `stuff` (14,) of the stuff head's
    classes, the first of which is "no stuff".
    """

    things: FloatArray
    stuff: FloatArray


@dataclass(frozen=True)
class Label:
    """A region's noun (None where no noun is likely enough), the probability that it is right, and the three classes
    with the largest shares.
    """

    noun: Noun | None
    score: float
    guesses: tuple[tuple[Noun, float], ...] = ()


class Namer:
    """Combine the networks' outputs into labels."""

    def __init__(self, nouns: Nouns) -> None:
        self.nouns = nouns
        stuff = tuple(c.synset for c in CLASSES if c.synset is not None)
        self._classes = (*nouns.imagenet, *nouns.coco, *stuff)
        self._candidates = [noun for noun in nouns.values() if not noun.general]
        rows = {noun.id: row for row, noun in enumerate(self._candidates)}
        is_kind = np.zeros((len(self._candidates), len(self._classes)), dtype=bool)
        for column, synset in enumerate(self._classes):
            extra = [coco for coco, hyponyms in EXTRA_HYPONYMS.items() if synset in hyponyms]
            for above in (synset, *nouns.ancestors(synset), *extra):
                if above in rows:
                    is_kind[rows[above], column] = True
        self._kinds = is_kind.nonzero()
        others = {*nouns.coco, *stuff}
        self._rewards = np.array([_reward(noun, set(nouns.imagenet), others) for noun in self._candidates])
        num_things = len(nouns.imagenet)
        self._coco = {
            synset: (column, np.flatnonzero(is_kind[rows[synset], :num_things]))
            for column, synset in enumerate(nouns.coco, num_things)
        }
        self._person, _ = self._coco[PERSON]
        is_garment = [any(nouns.is_a(synset, garment) for garment in GARMENTS) for synset in self._classes]
        self._garments = np.flatnonzero(is_garment)

    def name(self, scores: ClassScores, box: Box, detections: Sequence[Detection]) -> Label:
        """The label of a region with this tight box."""
        return self.name_all([(scores, box, detections)])

    def name_all(self, views: Sequence[tuple[ClassScores, Box, Sequence[Detection]]]) -> Label:
        """One label for an object in several pictures, from the mean of their distributions."""
        shares = np.mean([self._shares(*view) for view in views], axis=0)
        rows, columns = self._kinds
        noun_shares = np.bincount(rows, shares[columns], len(self._candidates))
        rewards = self._rewards * noun_shares
        best = int(rewards.argmax())
        guesses = tuple((self.nouns[self._classes[i]], float(shares[i])) for i in np.argsort(-shares)[:3])
        noun = self._candidates[best] if rewards[best] >= MIN_EXPECTED_REWARD else None
        return Label(noun, calibrated(float(noun_shares[best])), guesses)

    def _shares(self, scores: ClassScores, box: Box, detections: Sequence[Detection]) -> FloatArray:
        """The distribution over all classes. What detections leave of it is divided by the stuff head."""
        detected = detected_shares(box, detections)
        rest = 1 - sum(detected.values())
        first_stuff = len(self._classes) - len(scores.stuff) + 1
        shares = np.zeros(len(self._classes))
        shares[: len(scores.things)] = rest * scores.stuff[0] * scores.things
        shares[first_stuff:] = rest * scores.stuff[1:]
        for synset, share in detected.items():
            column, hyponyms = self._coco[synset]
            weights = scores.things[hyponyms]
            total = weights.sum() + BREADTH
            shares[hyponyms] += share * weights / total
            shares[column] += share * BREADTH / total
        if fits_person(box, detections):
            shares[self._person] += shares[self._garments].sum()
            shares[self._garments] = 0
        return shares


def _reward(noun: Noun, imagenet: Collection[str], other_classes: Collection[str]) -> float:
    if noun.level == "broad":
        return BROAD_REWARD
    if noun.id in other_classes or (noun.level == "basic" and noun.id not in imagenet):
        return OTHER_CLASS_REWARD
    return IMAGENET_REWARD if noun.id in imagenet else HYPERNYM_REWARD


def calibrated(share: float) -> float:
    """The probability that a label with this share of the distribution is right."""
    right, wrong = min(1.0, share) ** LOG_ODDS_SCALE, max(0.0, 1 - share) ** LOG_ODDS_SCALE
    return right / (right + wrong)


def detected_shares(box: Box, detections: Sequence[Detection]) -> dict[str, float]:
    """Share of the distribution of each COCO class detected in a region's box, by synset."""
    shares: dict[str, float] = {}
    for detection in detections:
        iou = box_iou(box, detection.box)
        if iou >= MIN_DETECTION_IOU:
            share = _detection_weight(detection.score * min(1.0, iou / FULL_DETECTION_IOU))
            shares[detection.synset] = max(shares.get(detection.synset, 0.0), min(share, MAX_DETECTION_SHARE))
    total = max(1.0, sum(shares.values()) / MAX_DETECTION_SHARE)
    return {synset: share / total for synset, share in shares.items() if share}


def fits_person(box: Box, detections: Sequence[Detection]) -> bool:
    """Whether a region's box is that of a detected person, however low the detection's score."""
    return any(
        detection.synset == PERSON and box_iou(box, detection.box) >= FULL_DETECTION_IOU for detection in detections
    )


def _detection_weight(score: float) -> float:
    """0 up to MIN_DETECTION_SCORE, 1 from SURE_DETECTION_SCORE on, linear between."""
    return min(1.0, max(0.0, (score - MIN_DETECTION_SCORE) / (SURE_DETECTION_SCORE - MIN_DETECTION_SCORE)))


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes xyxy."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
