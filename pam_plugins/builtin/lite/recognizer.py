"""The two networks that recognise: a classifier for crops around regions, a detector for the whole picture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch

from pam_core.contracts import Picture
from pam_core.masks import Box
from pam_plugins.builtin.lite.loading import load_weights
from pam_plugins.builtin.lite.naming import Detection, Probabilities
from pam_plugins.builtin.lite.networks import efficientnet
from pam_plugins.builtin.lite.networks.coco_detector import CocoDetector
from pam_plugins.builtin.lite.networks.efficientnet import EfficientNetLite2
from pam_plugins.builtin.lite.nouns import Nouns

MARGINS = (0.15,)
"""How much context a crop shows on each side, as a share of the region's longer side."""

TEMPERATURE = 1.0
"""Divides the classifier's logits. 1 leaves the scores as they are: not yet fitted to data."""

FILL = 127
BATCH = 32
MIN_DETECTION_SCORE = 0.35


class Recognizer:
    """Knows classes by number and the nouns they stand for; which of them names a region is decided elsewhere."""

    def __init__(
        self, classifier: EfficientNetLite2, detector: CocoDetector, nouns: Nouns, device: torch.device
    ) -> None:
        self.classifier = classifier
        self.detector = detector
        self.nouns = nouns
        self.device = device

    @classmethod
    def load(cls, device: torch.device, nouns: Nouns) -> Recognizer:
        classifier = load_weights(EfficientNetLite2(), "efficientnet_lite2", device)
        return cls(classifier, load_weights(CocoDetector(), "coco_detector", device), nouns, device)

    def detect(self, picture: Picture) -> tuple[Detection, ...]:
        """The COCO objects in an RGB picture (H, W, 3)."""
        pixels = torch.from_numpy(picture).to(self.device).permute(2, 0, 1)
        found = self.detector.detect(pixels, score_threshold=MIN_DETECTION_SCORE)
        return tuple(
            Detection((x1, y1, x2, y2), score, self.nouns.coco[class_id])
            for (x1, y1, x2, y2), score, class_id in zip(
                found.boxes.tolist(), found.scores.tolist(), found.class_ids.tolist(), strict=True
            )
        )

    @torch.inference_mode()
    def classify(self, picture: Picture, boxes: Sequence[Box]) -> npt.NDArray[np.float64]:
        """ImageNet class probabilities (N, 1000) of what is in each box, seen with some of what is around it."""
        rows: list[Probabilities] = []
        for start in range(0, len(boxes), BATCH):
            batch = boxes[start : start + BATCH]
            crops = np.stack([_crop(picture, box, margin) for box in batch for margin in MARGINS])
            pixels = torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2).float()
            logits = self.classifier((pixels - efficientnet.PIXEL_MEAN) / efficientnet.PIXEL_STD)
            mean = logits.unflatten(0, (len(batch), len(MARGINS))).mean(dim=1)
            rows.extend((mean / TEMPERATURE).softmax(dim=-1).double().cpu().numpy())
        return np.stack(rows)


def _crop(picture: Picture, box: Box, margin: float) -> npt.NDArray[np.uint8]:
    """The square around a box with context, at the classifier's size; grey where the picture ends."""
    x1, y1, x2, y2 = box
    side = max(x2 - x1, y2 - y1, 1.0) * (1 + 2 * margin)
    left, top = round((x1 + x2 - side) / 2), round((y1 + y2 - side) / 2)
    right, bottom = left + max(1, round(side)), top + max(1, round(side))
    height, width = picture.shape[:2]
    inside = picture[max(0, top) : bottom, max(0, left) : right]
    square = cv2.copyMakeBorder(
        inside,
        max(0, -top),
        max(0, bottom - height),
        max(0, -left),
        max(0, right - width),
        cv2.BORDER_CONSTANT,
        value=(FILL, FILL, FILL),
    )
    size = (efficientnet.IMAGE_SIZE, efficientnet.IMAGE_SIZE)
    shrinking = square.shape[0] > efficientnet.IMAGE_SIZE
    return cv2.resize(square, size, interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC)
