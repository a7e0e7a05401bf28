"""Run the networks that labels are made from: a classifier and a stuff head on regions, a detector on pictures."""

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
from pam_plugins.models.lite.naming import MIN_DETECTION_SCORE, ClassScores, Detection
from pam_plugins.models.lite.networks import coco_detector, efficientnet, stuff_head
from pam_plugins.models.lite.networks.coco_detector import CocoDetector
from pam_plugins.models.lite.networks.efficientnet import EfficientNetLite2
from pam_plugins.models.lite.networks.stuff_head import StuffHead
from pam_plugins.models.lite.nouns import Nouns

MARGIN = 0.15
"""Context on each side of a classifier crop, as a share of the longer side of the region's box."""

TEMPERATURE = 0.75
"""Divides the classifier's logits, which are underconfident on crops; set on the development clicks."""

TILE_SHARE = 0.6
"""Sides of the four overlapping tiles that the detector runs on, as a share of the picture's sides."""

EDGE_DISTANCE = 3
"""A detection within this many pixels of a tile's inner edge may be cut off by it."""

FILL = 127
BATCH = 16


class Recognizer:
    """The three networks with their pre- and post-processing. `naming` chooses a label from their outputs."""

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
        # The crops' layout in memory; a third faster on a CPU.
        classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(
            classifier,
            load_weights(StuffHead(), "stuff_head", device),
            load_weights(CocoDetector(), "coco_detector", device),
            nouns,
            device,
        )

    def detect(self, picture: Picture, parts: bool = True) -> tuple[Detection, ...]:
        """Detect COCO objects in an RGB picture (H, W, 3), and with `parts` in its tiles too, for small objects.

        Detections cut off by a tile's inner edge are dropped; another tile or the whole picture has them.
        """
        pixels = torch.from_numpy(picture).to(self.device).permute(2, 0, 1)
        height, width = picture.shape[:2]
        detections = []
        for left, top, right, bottom in _tiles(width, height)[: None if parts else 1]:
            tile = pixels[:, top:bottom, left:right]
            output = self.detector.detect(tile, score_threshold=MIN_DETECTION_SCORE)
            boxes = (output.boxes + output.boxes.new_tensor([left, top, left, top])).tolist()
            for (x1, y1, x2, y2), score, class_id in zip(
                boxes, output.scores.tolist(), output.class_ids.tolist(), strict=True
            ):
                complete = (
                    (left == 0 or x1 > left + EDGE_DISTANCE)
                    and (top == 0 or y1 > top + EDGE_DISTANCE)
                    and (right == width or x2 < right - EDGE_DISTANCE)
                    and (bottom == height or y2 < bottom - EDGE_DISTANCE)
                )
                if complete:
                    detections.append(Detection((x1, y1, x2, y2), score, self.nouns.coco[class_id]))
        return tuple(detections)

    @torch.inference_mode()
    def classify(self, picture: Picture, regions: Sequence[tuple[BoolArray, Box]]) -> list[ClassScores]:
        """Class probabilities of each region, a mask (H, W) with its tight box, from classifier and stuff head."""
        scores: list[ClassScores] = []
        for start in range(0, len(regions), BATCH):
            batch = regions[start : start + BATCH]
            crops = self._pixels([crop_square(picture, box, MARGIN) for _, box in batch])
            around, things = self._classify_crops(crops, [_crop_mask(mask, box) for mask, box in batch])
            squares = [crop_square(picture, stuff_head.inner_square(mask), 0.0) for mask, _ in batch]
            measurements = np.stack([stuff_head.measure(picture, mask) for mask, _ in batch])
            inside = self.classifier.pooled_features(self._pixels(squares))
            stuff = self.stuff(around, inside, torch.from_numpy(measurements).to(self.device))
            scores += [ClassScores(*pair) for pair in zip(_array(things), _array(stuff), strict=True)]
        return scores

    def _classify_crops(
        self, crops: torch.Tensor, weights: Sequence[npt.NDArray[np.float32]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pooled features (N, 1280) of crops (N, 3, S, S), and class probabilities (N, 1000).

        `weights` are the regions' masks (S, S) in the crops. The feature map is averaged over the crop and its mirror
        image; the logits come from the mean of two poolings of it, over the whole crop and over the mask.
        """
        features = self.classifier.feature_map(crops)
        mirrored = self.classifier.feature_map(crops.flip(3)).flip(3)
        averaged = (features + mirrored) / 2
        size = (features.shape[3], features.shape[2])
        small = np.stack([cv2.resize(weight, size, interpolation=cv2.INTER_AREA) for weight in weights])
        weight = torch.from_numpy(small).to(self.device)[:, None]
        masked = (averaged * weight).sum((2, 3)) / weight.sum((2, 3)).clamp(min=1e-6)
        logits = self.classifier.classifier((averaged.mean((2, 3)) + masked) / 2)
        return features.mean((2, 3)), (logits / TEMPERATURE).softmax(dim=-1)

    def _pixels(self, crops: Sequence[npt.NDArray[np.uint8]]) -> torch.Tensor:
        pixels = torch.from_numpy(np.stack(crops)).to(self.device).permute(0, 3, 1, 2)
        return efficientnet.normalize(pixels)


def _tiles(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """The whole picture, and four overlapping tiles of a picture larger than the detector's input, as boxes xyxy."""
    tiles = [(0, 0, width, height)]
    if max(width, height) > coco_detector.IMAGE_SIZE:
        across, down = math.ceil(TILE_SHARE * width), math.ceil(TILE_SHARE * height)
        tiles += [
            (left, top, left + across, top + down) for top in (0, height - down) for left in (0, width - across)
        ]
    return tiles


def _array(probabilities: torch.Tensor) -> npt.NDArray[np.float64]:
    return np.asarray(probabilities.cpu(), dtype=np.float64)


def _crop_mask(mask: BoolArray, box: Box) -> npt.NDArray[np.float32]:
    """A region's mask in its classifier crop, (S, S), from 0 outside to 1 inside."""
    inside = crop_square(mask.view(np.uint8) * 255, box, MARGIN, fill=0)
    return (inside / 255).astype(np.float32)


def crop_square(picture: npt.NDArray[np.uint8], box: Box, margin: float, fill: int = FILL) -> npt.NDArray[np.uint8]:
    """The square crop around a box, with a margin, resized for the classifier; `fill` beyond the picture."""
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
    downscaled = square.shape[0] > efficientnet.IMAGE_SIZE
    return cv2.resize(square, size, interpolation=cv2.INTER_AREA if downscaled else cv2.INTER_CUBIC)
