"""How an object moved over a clip: what can be measured of its boxes, and nothing else. No network, no guess.

Everything is motion in the picture: where the camera moves, things that stand still move in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from pam_core.masks import Box

Item = TypeVar("Item")
Point = tuple[float, float]

POSITIONS = 64
"""At most this many positions of a clip are kept, evenly spread; so a clip of any length takes little memory."""

STILL = 0.15
"""An object that stays within this share of its longer side stands still."""

WANDERING = 2.5
"""A way this many times as long as what it led to has no one direction."""

GROWTH = 1.5
"""Growth by less than this factor is not told: masks are not that exact."""

SPAN = 5
"""Over how many frames the direction at a picture's edge, and sizes, are measured."""

DIRECTIONS = ("right", "lower right", "down", "lower left", "left", "upper left", "up", "upper right")
"""By eighths of a turn, clockwise from the right, as y goes down."""

_EDGES = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}


class Thinned(Generic[Item]):
    """Keeps at most `most` of any number of items, evenly spread: every second one goes when there are too many."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.items: list[Item] = []
        self._every = 1
        self._count = 0

    @property
    def due(self) -> bool:
        """Whether the next item will be kept."""
        return self._count % self._every == 0

    def put(self, item: Item) -> None:
        if self.due:
            self.items.append(item)
        self.skip()
        if len(self.items) > self.most:
            self.items = self.items[::2]
            self._every *= 2

    def skip(self) -> None:
        """Count an item that is not due, without making it."""
        self._count += 1


@dataclass(frozen=True)
class Observation:
    """The object on one frame: seconds, its box in pixels, its area in pixels."""

    time: float
    box: Box
    area: float

    @property
    def centre(self) -> Point:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def side(self) -> float:
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])


@dataclass(frozen=True)
class Motion:
    """What was measured over a clip. Where the object was never seen, `start` is None and the rest says nothing.

    `start`, `end`: centre of its box in shares of the picture. `direction`: one of DIRECTIONS, None where it stood
    still or took no one direction (`moves`). `speed`: the length of its way in pixels a second; None where it stood
    still or no time passed. `growth`: its area at the end over that at the start, None where it cannot be compared.
    `enters`, `leaves`: the edge ("left", "right", "top", "bottom") where it came in or went out. `found`, `lost`:
    whether it was not seen at first, or at last. `away`: seconds in between for which it was not seen.
    """

    start: Point | None = None
    end: Point | None = None
    moves: bool = False
    direction: str | None = None
    speed: float | None = None
    growth: float | None = None
    enters: str | None = None
    leaves: str | None = None
    found: bool = False
    lost: bool = False
    away: float = 0.0


class MotionRecorder:
    """Takes in one frame after the other, whichever way time runs; `motion` says what they amount to."""

    def __init__(self, size: tuple[int, int]) -> None:
        """`size`: the picture's (height, width) in pixels."""
        self.size = size
        self._way: Thinned[Observation] = Thinned(POSITIONS)
        self._early: list[Observation] = []
        self._late: deque[Observation] = deque(maxlen=SPAN)
        self._found = False
        self._lost = False
        self._missing_since: float | None = None
        self._away = 0.0

    def add(self, observation: Observation) -> None:
        if self._missing_since is not None and self._late:
            self._away += abs(observation.time - self._missing_since)
            self._late.clear()
        self._missing_since, self._lost = None, False
        if len(self._early) < SPAN:
            self._early.append(observation)
        self._late.append(observation)
        self._way.put(observation)

    def add_absence(self, time: float) -> None:
        self._found = self._found or not self._early
        self._lost = True
        if self._missing_since is None:
            self._missing_since = time

    def motion(self) -> Motion:
        if not self._early:
            return Motion(found=self._found, lost=self._lost)
        first, last = self._early[0], self._late[-1]
        way = self._way.items if self._way.items[-1] is last else [*self._way.items, last]
        points = _smooth([observation.centre for observation in way])
        length = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
        went = points[-1] - points[0]
        side = float(np.median([observation.side for observation in way]))
        seconds = abs(last.time - first.time) - self._away
        moves = float(np.linalg.norm(np.ptp(points, axis=0))) >= STILL * side
        straight = moves and float(np.linalg.norm(went)) * WANDERING >= length
        return Motion(
            start=self._share(first.centre),
            end=self._share(last.centre),
            moves=moves,
            direction=_direction(went) if straight else None,
            speed=length / seconds if moves and seconds > 0 else None,
            growth=self._growth(),
            enters=self._edge(first, [s.centre for s in reversed(self._early)]) if self._found else None,
            leaves=self._edge(last, [s.centre for s in self._late]) if self._lost else None,
            found=self._found,
            lost=self._lost,
            away=self._away,
        )

    def _share(self, point: Point) -> Point:
        return point[0] / self.size[1], point[1] / self.size[0]

    def _edge(self, observation: Observation, towards: Sequence[Point]) -> str | None:
        """The edge that the object touches and that its way (from the inside out) leads to."""
        went = np.subtract(towards[-1], towards[0])
        touched = {edge: float(went @ np.array(_EDGES[edge])) for edge in self._touched(observation)}
        best = max(touched, key=lambda edge: touched[edge], default=None)
        return best if best and touched[best] > 0.5 * float(np.linalg.norm(went)) else None

    def _touched(self, observation: Observation) -> list[str]:
        height, width = self.size
        near = 0.01 * max(self.size)
        x1, y1, x2, y2 = observation.box
        touched = {"left": x1 <= near, "right": x2 >= width - near, "top": y1 <= near, "bottom": y2 >= height - near}
        return [edge for edge, is_touched in touched.items() if is_touched]

    def _growth(self) -> float | None:
        """Only of what is wholly in the picture and never out of sight: a thing half hidden is not smaller."""
        if self._found or self._lost or self._away:
            return None
        whole = [s for s in self._way.items if not self._touched(s)]
        if len(whole) < 2 * SPAN:
            return None
        growth = float(np.median([s.area for s in whole[-SPAN:]]) / np.median([s.area for s in whole[:SPAN]]))
        return growth if not 1 / GROWTH < growth < GROWTH else None


def _smooth(points: Sequence[Point]) -> np.ndarray:
    """Means of up to five neighbours (N, 2): the jitter of a mask is no way."""
    known = np.array(points)
    reach = min(2, (len(known) - 1) // 2)
    return np.array([known[max(0, i - reach) : i + reach + 1].mean(axis=0) for i in range(len(known))])


def _direction(went: np.ndarray) -> str:
    return DIRECTIONS[round(float(np.arctan2(went[1], went[0])) / (np.pi / 4)) % 8]
