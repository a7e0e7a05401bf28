"""Whom the detector sees, from frame to frame: the objects that are followed, if it knows their kind, and all others
of that kind, asked for or not. So who passes takes his own box, and is not taken for the one who is followed.

Boxes are paired with what was seen before by where it was going and by the colours of its upper and its lower half.
Of two who overlap the colours are not learnt, as each shows some of the other's. In pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pam_core.masks import Box
from pam_core.types import Picture
from pam_plugins.models.lite.appearance import FloatArray, colours, unit
from pam_plugins.models.lite.naming import Detection, box_iou

KNOWN = 0.65
"""The IoU with a detection's box from which on an object is what is detected, and not a part of it, as a hat."""

ONE = 0.5
"""Detections whose boxes have this IoU are of one thing."""

CLEAR = 0.45
"""The least score of somebody new, or of the kind of an object; less is enough for those who are known."""

HALVES = ((0.1, 0.5), (0.5, 0.95))
MIDDLE = (0.25, 0.75)
"""Upper and lower half in shares of a box's height, and the share of its width that is surely not background."""

REACH = 0.6
REACHING = 0.05
FAR = 1.5
"""How far from where it was going a thing can be, in roots of its area: at once, more for each frame that it was not
seen, and at most."""

ALIKE = (0.78, 0.88)
DIFFERENCE = 3.0
"""The least likeness of the same thing from one frame to the next, and when it was not seen for a while; and what
unlikeness costs, where being as far off as it can be costs REACH."""

AWAY = 0.02
MOST_AWAY = 10
"""What each frame without a detection costs, up to so many: who was seen just now is more likely seen again."""

SIZES = (0.4, 2.5)
"""How much larger or smaller it can be, as a ratio of areas."""

BACK = (0.75, 1.35)
"""The same of the longer side of one who was not seen for a while: half of somebody else is not him."""

MAY_BE = 0.7
"""The least likeness of somebody new to one who is missing there that leaves open whether it is he."""

GROWING = 0.3
"""How fast his size follows what is seen of him alone."""

CROWDED = 0.15
"""Two overlap where more than this share of one is in the other's box."""

EDGE = 2
"""Within so many pixels of it a box touches the picture's edge."""

LEARNING = 0.1
STEERING = 0.3
SLOWING = 0.9
"""How fast looks and velocity follow what is seen; what velocity is left after a frame without a detection."""

STEADY = 0.5
"""The share of frames with a detection from which on the detector is relied on to see a thing where it is."""

FORGOTTEN = 20
"""After so many frames without a detection one who is not asked for is forgotten."""


@dataclass(frozen=True)
class Sight:
    """A detection, how its halves look, and whether it overlaps another."""

    box: Box
    score: float
    look: FloatArray
    crowded: bool


@dataclass
class Neighbour:
    """One who is seen again and again. `sight` is None where it is not seen now; `velocity` in pixels a frame;
    `size`: width and height of the whole, as `box` may be that of a part beside another.

    `missed`: frames since it was detected; `looked`: frames on which it should have been, and `found`: was.
    `located`: it was found where `box` is since, without the detector.
    """

    box: Box
    look: FloatArray
    sight: Sight | None
    velocity: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    missed: int = 0
    looked: int = 0
    found: int = 0
    located: bool = False
    size: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        self.size = extent(self.box)

    @property
    def known(self) -> bool:
        """Whether the detector mostly sees it, so that it is hidden where the detector does not."""
        return self.found >= STEADY * self.looked

    def go_on(self) -> None:
        """Move to where it is expected on the next frame, on which it is not seen yet."""
        if self.sight is None or self.sight.crowded:
            self.velocity *= SLOWING
        self.sight = None
        self.missed += 1
        self.looked += self.missed <= MOST_AWAY
        x, y = (float(value) for value in self.velocity)
        self.box = (self.box[0] + x, self.box[1] + y, self.box[2] + x, self.box[3] + y)

    def gain(self, sight: Sight, alone: bool = False) -> float:
        """How well a detection fits, 0 where it cannot be this one. `alone`: nobody else of its kind is about."""
        likeness = float(self.look @ sight.look)
        shift, reach = self._shift(sight), self._reach
        away = 0.0 if self.located else min(1.0, (self.missed - 1) / MOST_AWAY)
        possible = shift <= reach and SIZES[0] < area(sight.box) / self._area < SIZES[1]
        if self.missed > MOST_AWAY:
            possible &= BACK[0] < max(extent(sight.box)) / max(self.size) < BACK[1]
        if alone and self.missed > MOST_AWAY:  # it may come in anywhere, and was cut by the edge when it went
            possible, shift = True, 0.0
        if not possible or likeness < ALIKE[0] + away * (ALIKE[1] - ALIKE[0]):
            return 0.0
        return 2 - REACH * shift / reach - DIFFERENCE * (1 - likeness) - AWAY * MOST_AWAY * away

    def may_be(self, other: Neighbour) -> bool:
        """Whether somebody new may be this one, who is missing since: near enough, and not unlike it."""
        if self.sight or not other.sight or other.found >= self.missed:
            return False
        return self._shift(other.sight) <= self._reach and float(self.look @ other.sight.look) >= MAY_BE

    @property
    def _area(self) -> float:
        return self.size[0] * self.size[1]

    @property
    def _reach(self) -> float:
        return min(FAR, REACH + REACHING * (self.missed - 1))

    def _shift(self, sight: Sight) -> float:
        """How far a detection is from where this one is expected, in roots of its area."""
        return float(np.linalg.norm(np.subtract(middle(sight.box), middle(self.box)))) / self._area**0.5

    def see(self, sight: Sight) -> None:
        shift = np.subtract(middle(sight.box), middle(self.box))
        if self.missed > 1:
            self.velocity = np.zeros(2)
        elif not sight.crowded:
            self.velocity = self.velocity + STEERING * shift
        self.box, self.sight, self.missed, self.located = sight.box, sight, 0, False
        self.found += 1
        if not sight.crowded:
            wide, high = extent(sight.box)
            self.size = (
                (1 - GROWING) * self.size[0] + GROWING * wide,
                (1 - GROWING) * self.size[1] + GROWING * high,
            )
            self.look = unit((1 - LEARNING) * self.look + LEARNING * sight.look)


class Neighbours:
    """Those who are seen, by the kinds of the objects that are followed; nothing where none has a kind."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.bound: dict[int, Neighbour] = {}
        self._all: list[Neighbour] = []

    def begin(self, picture: Picture, found: Sequence[Detection], boxes: Mapping[int, Box]) -> None:
        """Objects (by track id) that begin here, or are corrected; `found` is of any kind."""
        for track_id, box in boxes.items():
            self.bound.pop(track_id, None)
            same = [each for each in found if each.score >= CLEAR and box_iou(each.box, box) >= KNOWN]
            if not same:
                continue
            self.kinds.update(each.synset for each in same)
            best = max(same, key=lambda each: box_iou(each.box, box))
            known = [each for each in self._all if each.sight and box_iou(each.sight.box, best.box) >= ONE]
            free = [each for each in known if not any(each is other for other in self.bound.values())]
            if not free:
                sight = Sight(best.box, best.score, halves(picture, best.box), False)
                free = [Neighbour(best.box, sight.look, sight)]
                self._all += free
            self.bound[track_id] = free[0]

    def found_at(self, track_id: int, box: Box) -> None:
        """An object was found long after its last detection: here it is expected to be detected again. Sooner, its
        own way says better where it is than a mask that may have slipped onto another.
        """
        if track_id in self.bound and self.bound[track_id].missed > MOST_AWAY:
            self.bound[track_id].box = box
            self.bound[track_id].located = True

    def remove(self, track_id: int) -> None:
        self.bound.pop(track_id, None)
        if not self.bound:
            self.kinds, self._all = set(), []

    def step(self, picture: Picture, found: Sequence[Detection]) -> None:
        """Look at the next frame."""
        for each in self._all:
            each.go_on()
        sights = self._sights(picture, found)
        size = (picture.shape[1], picture.shape[0])
        # Who has gone over the picture's edge is not awaited among others: whoever comes in there may be anybody.
        awaited = [
            each for each in self._all if each.missed <= MOST_AWAY or self._alone or not at_edge(each.box, size)
        ]
        # First what is clearly seen: a box that is half of one and half of another would take it from its owner.
        # What is not seen clearly can be one who was seen just now, and nobody who comes back.
        left, new = _meet(awaited, [sight for sight in sights if sight.score >= CLEAR], self._alone)
        _meet([each for each in left if each.missed == 1], [sight for sight in sights if sight.score < CLEAR])
        self._all = [each for each in self._all if each.missed < FORGOTTEN or self._asked(each)]
        self._all += [Neighbour(sight.box, sight.look, sight) for sight in new]

    def _sights(self, picture: Picture, found: Sequence[Detection]) -> list[Sight]:
        """Detections of the kinds that matter, of those that are one thing the surest."""
        boxes: list[Detection] = []
        for each in sorted(found, key=lambda each: -each.score):
            if each.synset in self.kinds and not any(box_iou(each.box, other.box) >= ONE for other in boxes):
                boxes.append(each)
        missing = [each.box for each in self._all if 1 < each.missed < FORGOTTEN]
        return [
            Sight(
                each.box,
                each.score,
                halves(picture, each.box),
                any(covered(each.box, other.box) > CROWDED for other in boxes if other is not each)
                or any(covered(each.box, box) > CROWDED for box in missing),
            )
            for each in boxes
        ]

    @property
    def _alone(self) -> bool:
        return len(self._all) == 1

    def _asked(self, one: Neighbour) -> bool:
        return any(one is each for each in self.bound.values())

    def sight(self, track_id: int) -> Sight | None:
        """The detection of an object on this frame."""
        return self.bound[track_id].sight if track_id in self.bound else None

    def is_hidden(self, track_id: int, lost_for: int) -> bool:
        """Whether an object that the detector does not see cannot be found by its looks: it was neither detected nor
        found for a while; or it is lost, or was not detected for a while, and there are others of its kind.
        """
        one = self.bound.get(track_id)
        if one is None or not one.known:
            return False
        if min(one.missed, lost_for) > MOST_AWAY:
            return True
        return max(one.missed - MOST_AWAY, lost_for) > 0 and bool(self._strangers(one))

    def others(self, track_id: int) -> list[Box]:
        """The boxes of those who are seen now and were not asked for. None where the detector does not know the
        object itself: they may be of it.
        """
        if track_id not in self.bound:
            return []
        return [each.sight.box for each in self._strangers(self.bound[track_id]) if each.sight]

    def _strangers(self, one: Neighbour) -> list[Neighbour]:
        """All who were not asked for and surely are not this one."""
        return [each for each in self._all if not self._asked(each) and not one.may_be(each)]


def _meet(
    known: Sequence[Neighbour], sights: Sequence[Sight], alone: bool = False
) -> tuple[list[Neighbour], list[Sight]]:
    """Show each its own detection; who has none and which are nobody's."""
    gains = np.array([each.gain(sight, alone) for each in known for sight in sights])
    pairs = pair(gains.reshape(len(known), len(sights)))
    for row, column in pairs.items():
        known[row].see(sights[column])
    taken = set(pairs.values())
    return (
        [each for row, each in enumerate(known) if row not in pairs],
        [sight for column, sight in enumerate(sights) if column not in taken],
    )


def pair(gains: npt.NDArray[np.float64]) -> dict[int, int]:
    """The column of each row (N, M) that has one, so that all gains together are greatest; where nothing is to be
    gained, there is no pair.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, and pictures do without

    rows, columns = linear_sum_assignment(np.maximum(gains, 0), maximize=True)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return {row: column for row, column in pairs if gains[row, column] > 0}


def halves(picture: Picture, box: Box) -> FloatArray:
    """The colours of the upper and of the lower half, as one unit vector."""
    x1, y1, x2, y2 = box
    left, right = (min(int(x1 + share * (x2 - x1)), picture.shape[1] - 1) for share in MIDDLE)
    parts = []
    for half in HALVES:
        top, bottom = (min(int(y1 + share * (y2 - y1)), picture.shape[0] - 1) for share in half)
        parts.append(colours(picture[top : bottom + 1, left : right + 1]))
    return unit(np.concatenate(parts))


def middle(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def at_edge(box: Box, size: tuple[int, int]) -> bool:
    """Whether a box touches the edge of a picture of `size` (width, height), or lies beyond it."""
    return box[0] <= EDGE or box[1] <= EDGE or box[2] >= size[0] - EDGE or box[3] >= size[1] - EDGE


def area(box: Box) -> float:
    return max(1.0, (box[2] - box[0]) * (box[3] - box[1]))


def extent(box: Box) -> tuple[float, float]:
    """Width and height of a box, one pixel at least."""
    return max(1.0, box[2] - box[0]), max(1.0, box[3] - box[1])


def covered(box: Box, other: Box) -> float:
    """The share of a box that lies in another."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return width * height / area(box) if width > 0 and height > 0 else 0.0
