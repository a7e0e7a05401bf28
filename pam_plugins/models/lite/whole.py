"""The whole of an object as it looked when nothing hid it, and where it is now that something does.

What hides a part of it changes the cells of that part and no others: a place is judged by how many cells fit there,
not by how badly the others do.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from pam_core.masks import BoolArray
from pam_plugins.models.lite.appearance import View

SAMPLES = 400
"""At most so many of its cells are compared, evenly spread."""

SAME_COLOUR = 20.0
"""The mean difference of red, green and blue up to which a cell fits."""

STEADINESS = 0.3
"""The share of cells that must fit more where it is as far from the way it went as it is looked for."""

STEPS = 12
"""Places to each side, across and down, at which it is looked for at first; then between those next to the best."""


@dataclass
class Whole:
    """`mask`: where it is, in cells; `kept`: where it was seen; `places` (S, 2) xy and `colours` (S, 3) of some cells
    there. `shift`: how far it went since. `fits`: the share of cells that fit where it was found last; `found`: how
    far it went by that.
    """

    mask: BoolArray
    kept: BoolArray
    places: npt.NDArray[np.int64]
    colours: npt.NDArray[np.int16]
    shift: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    found: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    fits: float = 1.0

    @classmethod
    def seen(cls, mask: BoolArray, view: View) -> Whole:
        """All of it is seen here."""
        ys, xs = np.nonzero(mask)
        some = np.linspace(0, len(xs) - 1, min(len(xs), SAMPLES)).astype(int)
        return cls(mask, mask, np.stack([xs, ys], axis=1)[some], view.small[ys[some], xs[some]].astype(np.int16))

    def move(self, shift: npt.NDArray[np.float64]) -> None:
        """Go on by `shift` cells to the next frame."""
        self.shift = self.shift + shift
        self.mask = shifted(self.kept, self.shift.round())

    def find(self, view: View, reach: float) -> None:
        """Look for it where it must be on this frame, as far from there as this share of its longer side."""
        far = max(3, round(reach * float(np.ptp(self.places, axis=0).max() + 1)))
        step = max(1, far // STEPS)
        offsets, fits = self._best(view, _around(far, step), far)
        if step > 1:
            offsets, fits = self._best(view, offsets + _around(step, 1), far)
        self.found, self.fits = self.shift + offsets, fits
        self.mask = shifted(self.kept, self.shift.round() + offsets)

    def _best(self, view: View, offsets: npt.NDArray[np.int64], far: int) -> tuple[npt.NDArray[np.int64], float]:
        """The best of some places (P, 2), told from the expected one, and the share of cells that fit there."""
        high, wide = view.shape
        xs, ys = np.moveaxis(self.places + self.shift.round().astype(int) + offsets[:, None], 2, 0)
        shown = view.small[ys.clip(0, high - 1), xs.clip(0, wide - 1)].astype(np.int16)
        alike = np.abs(shown - self.colours).mean(axis=2) < SAME_COLOUR
        fits = (alike & (xs >= 0) & (ys >= 0) & (xs < wide) & (ys < high)).mean(axis=1)
        best = int((fits - STEADINESS * (offsets**2).sum(axis=1) / far**2).argmax())
        return offsets[best], float(fits[best])

    def settle(self) -> None:
        """It is where it was found: from there it goes on."""
        self.shift = self.found


def shifted(mask: BoolArray, shift: npt.NDArray[np.float64]) -> BoolArray:
    """A mask moved by some cells (x, y)."""
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float64)
    moved: BoolArray = cv2.warpAffine(mask.astype(np.float32), matrix, mask.shape[::-1]) > 0.5
    return moved


def _around(far: int, step: int) -> npt.NDArray[np.int64]:
    """Offsets (P, 2) up to `far` to each side."""
    along = np.arange(-far, far + 1, step)
    return np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2)
