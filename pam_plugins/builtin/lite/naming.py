"""What to call a region: class probabilities and detections in, one WordNet noun with a score out.

Two networks look at a region: an ImageNet classifier at a crop around it, and a COCO detector at the whole picture.
Where the classifier is sure, its class is the name. Where it is not, the name is the most specific more general noun
that its probabilities agree on ("dog" where breeds disagree), and "object" where they agree on nothing. ImageNet has
no people; a person is named by the detector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pam_core.masks import Box
from pam_plugins.builtin.lite.nouns import Noun, Nouns

Probabilities = npt.NDArray[np.float64]
"""Of the 1000 ImageNet classes, (1000,)."""

MIN_SCORE = 0.35
MIN_GENERAL_SCORE = 0.5
"""Below these the name becomes more general. Set by hand; not yet fitted to data, so the score is not calibrated."""

MIN_DETECTION_IOU = 0.5


@dataclass(frozen=True)
class Detection:
    """One object found by the detector: box xyxy in pixels, score in [0, 1], synset of its COCO class."""

    box: Box
    score: float
    synset: str


@dataclass(frozen=True)
class Name:
    """A region's noun, None where nothing was agreed on, its score, and the classes that came closest."""

    noun: Noun | None
    score: float
    guesses: tuple[tuple[Noun, float], ...] = ()


class Namer:
    """Knows the nouns and how the classes hang together."""

    def __init__(self, nouns: Nouns) -> None:
        self.nouns = nouns
        self._general = self._generalisations()

    def _generalisations(self) -> list[tuple[str, npt.NDArray[np.intp]]]:
        """Usable nouns above the classes with the classes below each, most specific (fewest classes) first."""
        above = {ancestor for leaf in self.nouns.imagenet for ancestor in self.nouns.ancestors(leaf)}
        usable = [(synset, np.array(sorted(self.nouns.leaves(synset)), dtype=np.intp)) for synset in above]
        usable = [(s, leaves) for s, leaves in usable if not self.nouns[s].general and len(leaves) > 1]
        return sorted(usable, key=lambda item: (len(item[1]), item[0]))

    def name(self, probabilities: Probabilities, box: Box, detections: Sequence[Detection]) -> Name:
        """The noun for a region with this tight box."""
        best = int(probabilities.argmax())
        leaf, score = self.nouns.imagenet[best], float(probabilities[best])
        guesses = tuple(
            (self.nouns[self.nouns.imagenet[i]], float(probabilities[i])) for i in np.argsort(-probabilities)[:3]
        )
        seen = self._detected(box, detections)
        if seen is not None and seen.score > score and not self.nouns.is_a(leaf, seen.synset):
            return Name(self.nouns[seen.synset], seen.score, guesses)
        if score >= MIN_SCORE:
            return Name(self.nouns[leaf], score, guesses)
        for synset, leaves in self._general:
            mass = float(probabilities[leaves].sum())
            if mass >= MIN_GENERAL_SCORE:
                return Name(self.nouns[synset], mass, guesses)
        if seen is not None:
            return Name(self.nouns[seen.synset], seen.score, guesses)
        return Name(None, score, guesses)

    @staticmethod
    def _detected(box: Box, detections: Sequence[Detection]) -> Detection | None:
        """The detection that is this region, if there is one."""
        fitting = [(iou, d) for d in detections if (iou := box_iou(box, d.box)) >= MIN_DETECTION_IOU]
        return max(fitting, key=lambda pair: pair[0] * pair[1].score)[1] if fitting else None


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes xyxy."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)
