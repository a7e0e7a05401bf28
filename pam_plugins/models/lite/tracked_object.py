"""What the tracker keeps of one object, and the masks among which it chooses on a frame. All in cells."""

from __future__ import annotations

from dataclasses import dataclass

from pam_core.masks import BoolArray
from pam_plugins.models.lite.appearance import FloatArray
from pam_plugins.models.lite.segmenter import MASK_LOGIT
from pam_plugins.models.lite.sort import Track


@dataclass
class TrackedObject:
    """A prompted object. `mask` is empty while it is lost; `predicted` is where the next one is expected. `last`,
    `first` and `recent` are its embeddings: the latest, that of its first frame, and a moving average. `area`, a
    moving average too, is that of the whole object. `lost_for` counts frames.
    """

    track: Track
    mask: BoolArray
    last: FloatArray
    predicted: BoolArray
    first: FloatArray
    recent: FloatArray
    area: float = 0.0
    lost_for: int = 0

    def __post_init__(self) -> None:
        self.area = float(self.mask.sum())

    def similarity(self, embedding: FloatArray) -> float:
        """The similarity of an embedding to its first and its recent appearance, in [0, 1]."""
        return float(embedding @ (self.first + self.recent)) / 2


@dataclass
class Candidate:
    """A mask that the decoder gave for an object: logits, mask in cells, its embedding and predicted IoU, and the
    similarity to the object.
    """

    logits: FloatArray
    mask: BoolArray
    embedding: FloatArray
    predicted_iou: float
    similarity: float

    def remove(self, cells: BoolArray) -> None:
        high, wide = cells.shape
        self.mask[cells] = False
        self.logits[:high, :wide][cells] = -MASK_LOGIT
