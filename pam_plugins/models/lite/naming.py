"""What to call a region: what three networks make of it in, one WordNet noun with a score out.

An ImageNet classifier looks at a crop around the region, a COCO detector at the whole picture, and a head knows
"stuff" (sky, grass, water ...). Their answers become one distribution over classes; a noun's share is that of the
classes of its kind. The name is the noun with the most expected use: its share times how much it would say if it were
right, so that "dog" wins where breeds disagree and "animal" only where nothing better holds (Deng et al., "Hedging
your bets", CVPR 2012). The figures below were set on the development clicks of tests/data/clicks.jsonl.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pam_core.masks import Box
from pam_plugins.models.lite.networks.stuff_head import CLASSES
from pam_plugins.models.lite.nouns import Noun, Nouns

FloatArray = npt.NDArray[np.float64]

MIN_USE = 0.2
"""Below this expected use not even the best noun is worth saying; so the less a noun says, the surer it must be."""

CLASS_USE = 1.0
KNOWN_USE = 0.97
PLAIN_USE = 0.7
BROAD_USE = 0.4
"""What a right answer is worth: one of the classifier's classes; a class of the other networks, or what people say
first ("bird"); another noun above those ("game bird"); a noun said for want of better ("animal")."""

TRUST = 0.5
"""The networks are too sure of themselves: the log odds of a noun's share times this are those of its being right
(fitted to the development clicks, leaving photographs out)."""

MIN_DETECTION_IOU = 0.5
FULL_DETECTION_IOU = 0.8
"""A detection counts from the first box overlap on, and fully from the second."""

MIN_DETECTION_SCORE = 0.3
SURE_DETECTION_SCORE = 0.65
MAX_DETECTION_SHARE = 0.95
"""Trust in a detection grows from none at the first score to all at the second, and with it its share of the
distribution, up to the third."""

BREADTH = 0.03
"""How readily a detection stays at its own class ("boat") rather than at the classes of its kind ("canoe")."""

DETECTED_AS = {
    "n03147509": ("n03063599", "n07920052"),  # cup: coffee mug, espresso
    "n04592099": ("n03443371", "n07892512", "n02823750"),  # wine glass: goblet, red wine, beer glass
    "n02870092": ("n07248320", "n06596364", "n02840245"),  # book: book jacket, comic book, binder
    "n02876657": ("n07892512",),  # bottle: red wine
}
"""Classes that a detector of the first takes in too, though no kind of it in WordNet."""


PERSON = "n00007846"
GARMENTS = ("n03051540", "n02739668")
"""Clothing and armor. A region that fits a person's box is the wearer, whatever the classifier says of the clothes."""


@dataclass(frozen=True)
class Detection:
    """One object found by the detector: box xyxy in pixels, score in [0, 1], synset of its COCO class."""

    box: Box
    score: float
    synset: str


@dataclass(frozen=True)
class Look:
    """What the networks make of one region: probabilities of the ImageNet classes (1000,) and of the stuff head's
    classes (the first is "no stuff").
    """

    things: FloatArray
    stuff: FloatArray


@dataclass(frozen=True)
class Name:
    """A region's noun, None where nothing was agreed on, the chance that it is right, and the classes that came
    closest, with their shares.
    """

    noun: Noun | None
    score: float
    guesses: tuple[tuple[Noun, float], ...] = ()


class Namer:
    """Knows the nouns and how the classes hang together."""

    def __init__(self, nouns: Nouns) -> None:
        self.nouns = nouns
        stuff = tuple(c.synset for c in CLASSES if c.synset is not None)
        self._classes = (*nouns.imagenet, *nouns.coco, *stuff)
        self._says = [noun for noun in nouns.values() if not noun.general]
        rows = {noun.id: row for row, noun in enumerate(self._says)}
        covers = np.zeros((len(self._says), len(self._classes)), dtype=bool)
        for column, synset in enumerate(self._classes):
            also = [detected for detected, kinds in DETECTED_AS.items() if synset in kinds]
            for above in (synset, *nouns.ancestors(synset), *also):
                if above in rows:
                    covers[rows[above], column] = True
        self._covers = covers.nonzero()
        self._use = np.array([_use(noun, set(nouns.imagenet), {*nouns.coco, *stuff}) for noun in self._says])
        things = len(nouns.imagenet)
        self._person = things + nouns.coco.index(PERSON)
        worn = [any(nouns.is_a(synset, garment) for garment in GARMENTS) for synset in self._classes]
        self._garments = np.flatnonzero(worn)
        self._detected = {
            synset: (index, np.flatnonzero(covers[rows[synset], :things]))
            for index, synset in enumerate(nouns.coco, things)
        }

    def name(self, look: Look, box: Box, detections: Sequence[Detection]) -> Name:
        """The noun for a region with this tight box."""
        return self.name_all([(look, box, detections)])

    def name_all(self, sights: Sequence[tuple[Look, Box, Sequence[Detection]]]) -> Name:
        """The noun for one thing seen several times, on different pictures: chosen once, from the mean of all."""
        each = [self._shares(*sight) for sight in sights]
        shares = np.mean(each, axis=0)
        nouns, classes = self._covers
        scores = np.bincount(nouns, shares[classes], len(self._says))
        use = self._use * scores
        best = int(use.argmax())
        guesses = tuple((self.nouns[self._classes[i]], float(shares[i])) for i in np.argsort(-shares)[:3])
        return Name(self._says[best] if use[best] >= MIN_USE else None, chance(float(scores[best])), guesses)

    def _shares(self, look: Look, box: Box, detections: Sequence[Detection]) -> FloatArray:
        """One distribution over all classes. What is not detected is stuff or a thing, as the stuff head has it."""
        detected = detected_shares(box, detections)
        rest = 1 - sum(detected.values())
        stuff = len(self._classes) - len(look.stuff) + 1
        shares = np.zeros(len(self._classes))
        shares[: len(look.things)] = rest * look.stuff[0] * look.things
        shares[stuff:] = rest * look.stuff[1:]
        for synset, share in detected.items():
            itself, kinds = self._detected[synset]
            likely = look.things[kinds]
            total = likely.sum() + BREADTH
            shares[kinds] += share * likely / total
            shares[itself] += share * BREADTH / total
        if fits_person(box, detections):
            shares[self._person] += shares[self._garments].sum()
            shares[self._garments] = 0
        return shares


def _use(noun: Noun, things: Collection[str], known: Collection[str]) -> float:
    if noun.level == "broad":
        return BROAD_USE
    if noun.id in known or (noun.level == "basic" and noun.id not in things):
        return KNOWN_USE
    return CLASS_USE if noun.id in things else PLAIN_USE


def chance(share: float) -> float:
    """How likely a noun with this share of the distribution is right, in [0, 1]."""
    for_it, against = min(1.0, share) ** TRUST, max(0.0, 1 - share) ** TRUST
    return for_it / (for_it + against)


def detected_shares(box: Box, detections: Sequence[Detection]) -> dict[str, float]:
    """How much of the distribution goes to the COCO classes that were detected where a region is, by synset."""
    shares: dict[str, float] = {}
    for found in detections:
        iou = box_iou(box, found.box)
        if iou >= MIN_DETECTION_IOU:
            sure = sureness(found.score * min(1.0, iou / FULL_DETECTION_IOU))
            shares[found.synset] = max(shares.get(found.synset, 0.0), min(sure, MAX_DETECTION_SHARE))
    total = max(1.0, sum(shares.values()) / MAX_DETECTION_SHARE)
    return {synset: share / total for synset, share in shares.items() if share}


def fits_person(box: Box, detections: Sequence[Detection]) -> bool:
    """Whether a region's box is that of a detected person, however low the detection's score."""
    return any(
        detection.synset == PERSON and box_iou(box, detection.box) >= FULL_DETECTION_IOU for detection in detections
    )


def sureness(score: float) -> float:
    """How much to trust a detection with this score, in [0, 1]."""
    return min(1.0, max(0.0, (score - MIN_DETECTION_SCORE) / (SURE_DETECTION_SCORE - MIN_DETECTION_SCORE)))


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes xyxy."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
