"""Binary masks, kept as COCO run lengths and decoded when someone looks.

A dense mask of a 12-megapixel photo is 12 MB; its run lengths are a few kilobytes. Regions, prompts and results
therefore carry `Mask`, and a thousand of them stay small. Encoding and decoding are pycocotools'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pam_core.errors import MaskError

BoolArray = npt.NDArray[np.bool_]
Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the original picture; x2 and y2 are exclusive (one past the last pixel)."""


@dataclass(frozen=True)
class Mask:
    """A binary mask: `height` x `width` pixels, as compressed COCO run lengths (column-major)."""

    height: int
    width: int
    counts: bytes

    @classmethod
    def from_array(cls, array: npt.NDArray[Any]) -> Mask:
        """Encode a boolean array (H, W). Raises MaskError for any other shape or type."""
        from pycocotools import mask as coco

        if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype != np.bool_:
            got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise MaskError(f"Got a mask as {got}; wanted a boolean array (height, width), e.g. `mask > 0`.")
        rle = coco.encode(np.asfortranarray(array.view(np.uint8)))
        return cls(int(rle["size"][0]), int(rle["size"][1]), rle["counts"])

    @classmethod
    def from_coco(cls, rle: dict[str, Any]) -> Mask:
        """Read a COCO RLE: `{"size": [height, width], "counts": str | bytes | list of run lengths}`."""
        from pycocotools import mask as coco

        try:
            height, width = (int(side) for side in rle["size"])
            if not (height >= 0 and width >= 0 and height * width < 2**32):
                raise ValueError(f"no mask is {width}x{height}")
            counts = rle["counts"]
            if isinstance(counts, str):
                counts = counts.encode("ascii")
            runs = counts if isinstance(counts, list) else _run_lengths(counts)
            if not all(isinstance(run, int) and run >= 0 for run in runs) or sum(runs) != height * width:
                raise ValueError(f"the run lengths do not add up to {height * width}")
            if isinstance(counts, list):
                counts = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise MaskError(
                f"This is not a COCO RLE: {error!r}; wanted {{'size': [height, width], 'counts': ...}}."
            ) from error
        return cls(height, width, counts)

    def to_coco(self) -> dict[str, Any]:
        """The COCO RLE with `counts` as text, ready for JSON."""
        return {"size": [self.height, self.width], "counts": self.counts.decode("ascii")}

    @property
    def array(self) -> BoolArray:
        """The mask as a fresh boolean array (height, width), C order."""
        from pycocotools import mask as coco

        dense: npt.NDArray[np.uint8] = coco.decode({"size": [self.height, self.width], "counts": self.counts})
        return np.ascontiguousarray(dense).view(np.bool_)

    @property
    def cropped(self) -> BoolArray:
        """What lies within the box, in half the time that the whole array takes."""
        from pycocotools import mask as coco

        x1, y1, x2, y2 = (int(side) for side in self.box)
        dense: npt.NDArray[np.uint8] = coco.decode({"size": [self.height, self.width], "counts": self.counts})
        return np.ascontiguousarray(dense[y1:y2, x1:x2]).view(np.bool_)

    @property
    def area(self) -> int:
        """How many pixels are set."""
        from pycocotools import mask as coco

        return int(coco.area({"size": [self.height, self.width], "counts": self.counts}))

    @property
    def box(self) -> Box:
        """The tight box around the set pixels; (0, 0, 0, 0) where none is set."""
        from pycocotools import mask as coco

        x, y, w, h = coco.toBbox({"size": [self.height, self.width], "counts": self.counts}).tolist()
        return (x, y, x + w, y + h)

    def iou(self, others: list[Mask]) -> npt.NDArray[np.float64]:
        """Intersection over union with each of `others`, float64 (N,). All must have one size."""
        from pycocotools import mask as coco

        for other in others:
            if (other.height, other.width) != (self.height, self.width):
                raise MaskError(
                    f"Got masks of {self.width}x{self.height} and {other.width}x{other.height}; "
                    "only masks of one picture can be compared."
                )
        if not others:
            return np.zeros(0)
        iou: npt.NDArray[np.float64] = coco.iou([self.to_coco()], [m.to_coco() for m in others], [0] * len(others))
        return iou[0]


def _run_lengths(counts: bytes) -> list[int]:
    """The run lengths in compressed COCO counts; pycocotools reads past the end of bad ones. Raises ValueError."""
    if not isinstance(counts, bytes):
        raise TypeError(f"counts are {type(counts).__name__}")
    runs: list[int] = []
    value = shift = 0
    for byte in counts:
        if not 48 <= byte < 112:
            raise ValueError("counts hold characters that no run length has")
        value |= (byte - 48 & 31) << shift
        shift += 5
        if byte - 48 & 32:
            continue
        if byte - 48 & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("counts are cut short")
    return runs
