"""The networks that recognise: a classifier and a stuff head for regions, a detector for whole pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch

from pam_core.masks import BoolArray, Box
from pam_core.types import Picture
from pam_plugins.models.lite.loading import load_weights
from pam_plugins.models.lite.naming import MIN_DETECTION_SCORE, Detection, Look
from pam_plugins.models.lite.networks import coco_detector, efficientnet, stuff_head
from pam_plugins.models.lite.networks.coco_detector import CocoDetector
from pam_plugins.models.lite.networks.efficientnet import EfficientNetLite2
from pam_plugins.models.lite.networks.stuff_head import StuffHead
from pam_plugins.models.lite.nouns import Nouns

MARGIN = 0.15
"""How much context a crop shows on each side, as a share of the region's longer side."""

TEMPERATURE = 0.75
"""Divides the classifier's logits, which are timid on crops; set on the development clicks."""

PART = 0.6
"""The sides of the four overlapping parts in which the detector looks at a picture again, as a share of its sides."""

CUT = 3
"""A detection that ends within this many pixels of a part's inner edge may go on beyond it."""

FILL = 127
BATCH = 16


class Recognizer:
    """Knows classes by number and the nouns they stand for; which of them names a region is decided elsewhere."""

    def __init__(
        self,
        classifier: EfficientNetLite2,
        stuff: StuffHead,
        detector: CocoDetector,
        nouns: Nouns,
        device: torch.device,
    ) -> None:
        self.classifier = classifier
        self.stuff = stuff
        self.detector = detector
        self.nouns = nouns
        self.device = device

    @classmethod
    def load(cls, device: torch.device, nouns: Nouns) -> Recognizer:
        classifier = load_weights(EfficientNetLite2(), "efficientnet_lite2", device)
        # As the crops lie in memory; a third faster on a CPU.
        classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(
            classifier,
            load_weights(StuffHead(), "stuff_head", device),
            load_weights(CocoDetector(), "coco_detector", device),
            nouns,
            device,
        )

    def detect(self, picture: Picture, parts: bool = True) -> tuple[Detection, ...]:
        """The COCO objects in an RGB picture (H, W, 3), seen whole and, for what is small in it, in `parts`.

        What the inner edge of a part cuts off is left to the other views.
        """
        pixels = torch.from_numpy(picture).to(self.device).permute(2, 0, 1)
        height, width = picture.shape[:2]
        detections = []
        for left, top, right, bottom in _views(width, height)[: None if parts else 1]:
            part = pixels[:, top:bottom, left:right]
            found = self.detector.detect(part, score_threshold=MIN_DETECTION_SCORE)
            boxes = (found.boxes + found.boxes.new_tensor([left, top, left, top])).tolist()
            for (x1, y1, x2, y2), score, class_id in zip(
                boxes, found.scores.tolist(), found.class_ids.tolist(), strict=True
            ):
                whole = (
                    (left == 0 or x1 > left + CUT)
                    and (top == 0 or y1 > top + CUT)
                    and (right == width or x2 < right - CUT)
                    and (bottom == height or y2 < bottom - CUT)
                )
                if whole:
                    detections.append(Detection((x1, y1, x2, y2), score, self.nouns.coco[class_id]))
        return tuple(detections)

    @torch.inference_mode()
    def look(self, picture: Picture, regions: Sequence[tuple[BoolArray, Box]]) -> list[Look]:
        """What each region, a mask (H, W) with its tight box, looks like to the classifier and to the stuff head."""
        looks: list[Look] = []
        for start in range(0, len(regions), BATCH):
            batch = regions[start : start + BATCH]
            crops = self._pixels([crop_square(picture, box, MARGIN) for _, box in batch])
            around, things = self._classify(crops, [_shrunk(mask, box) for mask, box in batch])
            squares = [crop_square(picture, stuff_head.inner_square(mask), 0.0) for mask, _ in batch]
            measured = np.stack([stuff_head.measure(picture, mask) for mask, _ in batch])
            inside = self.classifier.pooled_features(self._pixels(squares))
            stuff = self.stuff(around, inside, torch.from_numpy(measured).to(self.device))
            looks += [Look(*pair) for pair in zip(_array(things), _array(stuff), strict=True)]
        return looks

    def _classify(
        self, crops: torch.Tensor, weights: Sequence[npt.NDArray[np.float32]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled features (N, 1280) of crops (N, 3, S, S), and class probabilities (N, 1000) from crop and region.

        The probabilities see the crop and its mirror image, each pooled over all of it and over the region alone:
        the region says what is meant, its surroundings what it can be.
        """
        features = self.classifier.feature_map(crops)
        mirrored = self.classifier.feature_map(crops.flip(3)).flip(3)
        both = (features + mirrored) / 2
        size = (features.shape[3], features.shape[2])
        small = np.stack([cv2.resize(weight, size, interpolation=cv2.INTER_AREA) for weight in weights])
        weight = torch.from_numpy(small).to(self.device)[:, None]
        under = (both * weight).sum((2, 3)) / weight.sum((2, 3)).clamp(min=1e-6)
        logits = self.classifier.classifier((both.mean((2, 3)) + under) / 2)
        return features.mean((2, 3)), (logits / TEMPERATURE).softmax(dim=-1)

    def _pixels(self, crops: Sequence[npt.NDArray[np.uint8]]) -> torch.Tensor:
        pixels = torch.from_numpy(np.stack(crops)).to(self.device).permute(0, 3, 1, 2)
        return efficientnet.normalize(pixels)


def _views(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """All of a picture, and four overlapping parts (xyxy) of one larger than the detector sees at once."""
    views = [(0, 0, width, height)]
    if max(width, height) > coco_detector.IMAGE_SIZE:
        across, down = math.ceil(PART * width), math.ceil(PART * height)
        views += [
            (left, top, left + across, top + down) for top in (0, height - down) for left in (0, width - across)
        ]
    return views


def _array(probabilities: torch.Tensor) -> npt.NDArray[np.float64]:
    return np.asarray(probabilities.cpu(), dtype=np.float64)


def _shrunk(mask: BoolArray, box: Box) -> npt.NDArray[np.float32]:
    """A region's mask in the square that `crop_square` cuts, (S, S), 1 inside and 0 outside."""
    inside = crop_square(mask.view(np.uint8) * 255, box, MARGIN, fill=0)
    return (inside / 255).astype(np.float32)


def crop_square(picture: npt.NDArray[np.uint8], box: Box, margin: float, fill: int = FILL) -> npt.NDArray[np.uint8]:
    """The square around a box with context, at the classifier's size; `fill` where the picture ends."""
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
        value=(fill, fill, fill),
    )
    size = (efficientnet.IMAGE_SIZE, efficientnet.IMAGE_SIZE)
    shrinking = square.shape[0] > efficientnet.IMAGE_SIZE
    return cv2.resize(square, size, interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_CUBIC)
