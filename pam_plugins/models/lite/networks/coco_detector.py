"""NanoDet-g, a small anchor-free detector of the 80 COCO classes, as a plain PyTorch module.

Source of the architecture: https://github.com/RangiLyu/nanodet, config ``nanodet-g.yml`` (Apache-2.0; COCO
mAP 22.9 at 416 x 416, 3.8 M parameters): a CSP backbone, a convolution-free path aggregation neck (PAN) and
a Generalized Focal Loss head ("Generalized Focal Loss", Li et al., 2020), which predicts every side of a box
as a distribution over 11 distances.  Written anew for this project; batch norms are folded.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_CLASS_NAMES = (
    "person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant stop_sign "
    "parking_meter bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack umbrella handbag "
    "tie suitcase frisbee skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard "
    "tennis_racket bottle wine_glass cup fork knife spoon bowl banana apple sandwich orange broccoli carrot "
    "hot_dog pizza donut cake chair couch potted_plant bed dining_table toilet tv laptop mouse remote "
    "keyboard cell_phone microwave oven toaster sink refrigerator book clock vase scissors teddy_bear "
    "hair_drier toothbrush"
)

#: The 80 COCO classes; a class id is the index into this tuple.
COCO_CLASSES: tuple[str, ...] = tuple(name.replace("_", " ") for name in _CLASS_NAMES.split())

IMAGE_SIZE = 416
STRIDES = (8, 16, 32)

#: Mean and standard deviation for pixels 0..255 in B, G, R order: the weights want BGR.
PIXEL_MEAN_BGR = (103.53, 116.28, 123.675)
PIXEL_STD_BGR = (57.375, 57.12, 58.395)

_NECK_CHANNELS = 128
_NUM_BINS = 11  # a box side lies 0..10 strides away from its point


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution with symmetric "same" padding; its bias holds the folded batch norm."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


def _activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.1)


class ConcatBlock(nn.Module):
    """Two 3x3 convolutions at half the width, whose outputs are joined (the last one first)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels // 2)
        self.conv2 = _conv(channels // 2, channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        first = _activate(self.conv1(x))
        return torch.cat([_activate(self.conv2(first)), first], dim=1)


class CspBlock(nn.Module):
    """A convolution, a side branch of blocks, and both joined: doubles the channels."""

    def __init__(self, channels: int, num_blocks: int, stride: int) -> None:
        super().__init__()
        self.conv_in = _conv(channels, channels, stride=stride)
        self.blocks = nn.Sequential(*(ConcatBlock(channels) for _ in range(num_blocks)))
        self.conv_out = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2C, H / stride, W / stride)."""
        x = _activate(self.conv_in(x))
        return torch.cat([_activate(self.conv_out(self.blocks(x))), x], dim=1)


class PathAggregation(nn.Module):
    """Brings three levels to 128 channels and adds them into each other, coarse to fine and back."""

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(_conv(c, _NECK_CHANNELS, kernel=1) for c in channels)

    def forward(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> list[Tensor]:
        """Levels at strides 8, 16, 32, (B, C_i, H_i, W_i) -> (B, 128, H_i, W_i)."""

        def resize(x: Tensor, like: Tensor) -> Tensor:
            return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)

        fine, middle, coarse = (conv(x) for conv, x in zip(self.laterals, (fine, middle, coarse), strict=True))
        middle = middle + resize(coarse, middle)
        fine = fine + resize(middle, fine)
        middle = middle + resize(fine, middle)
        coarse = coarse + resize(middle, coarse)
        return [fine, middle, coarse]


class LevelHead(nn.Module):
    """Class scores and box sides of one level."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = _conv(_NECK_CHANNELS, _NECK_CHANNELS)
        self.predict = _conv(_NECK_CHANNELS, len(COCO_CLASSES) + 4 * _NUM_BINS, kernel=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 128, H, W) -> class scores (B, H*W, 80) in 0..1 and side logits (B, H*W, 4, 11)."""
        y = self.predict(_activate(self.conv(x))).flatten(2).transpose(1, 2)  # (B, H*W, 124)
        scores, sides = y.split([len(COCO_CLASSES), 4 * _NUM_BINS], dim=-1)
        return scores.sigmoid(), sides.unflatten(-1, (4, _NUM_BINS))


@dataclass(frozen=True)
class Detections:
    """Detections of one picture, best score first.

    Attributes:
        boxes: (N, 4) float, x0, y0, x1, y1 in pixels of the picture that was given, clipped to it.
        scores: (N,) float in 0..1.  They are not probabilities: 0.45 balances misses and false alarms.
        class_ids: (N,) int64, indices into :data:`COCO_CLASSES`.
    """

    boxes: Tensor
    scores: Tensor
    class_ids: Tensor

    def __len__(self) -> int:
        return len(self.scores)


class CocoDetector(nn.Module):
    """(B, 3, H, W) normalised BGR, H and W multiples of 32 -> class scores and boxes at every point."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, 32, stride=2)
        self.stage1 = CspBlock(32, num_blocks=1, stride=1)
        self.stage2 = CspBlock(64, num_blocks=2, stride=2)
        self.stage3 = CspBlock(128, num_blocks=2, stride=2)
        self.stage4 = CspBlock(256, num_blocks=3, stride=2)
        self.neck = PathAggregation((128, 256, 512))
        self.heads = nn.ModuleList(LevelHead() for _ in STRIDES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, A, 80) in 0..1 and boxes (B, A, 4), x0 y0 x1 y1 in input pixels, unclipped.

        A counts the points of all levels, stride 8 first, row by row: 3549 for a 416 x 416 input.
        """
        x = F.max_pool2d(_activate(self.stem(x)), 3, 2, padding=1)  # (B, 32, H/4, W/4)
        fine = self.stage2(self.stage1(x))  # (B, 128, H/8, W/8)
        middle = self.stage3(fine)  # (B, 256, H/16, W/16)
        coarse = self.stage4(middle)  # (B, 512, H/32, W/32)
        scores, boxes = [], []
        levels = self.neck(fine, middle, coarse)
        for head, stride, level in zip(self.heads, STRIDES, levels, strict=True):
            level_scores, sides = head(level)
            scores.append(level_scores)
            boxes.append(_decode_sides(sides, stride, level.shape[-2], level.shape[-1]))
        return torch.cat(scores, dim=1), torch.cat(boxes, dim=1)

    @torch.inference_mode()
    def detect(
        self,
        image: Tensor,
        *,
        score_threshold: float = 0.4,
        iou_threshold: float = 0.6,
        max_detections: int = 100,
        size: int = IMAGE_SIZE,
    ) -> Detections:
        """Detect objects in one picture.

        Args:
            image: (3, H, W) RGB, any dtype, values 0..255.
            score_threshold: least class score.
            iou_threshold: of two boxes of one class that overlap more than this, the weaker one goes.
            max_detections: at most this many are returned.
            size: side of the square input, a multiple of 32; a larger one detects smaller objects and takes longer.
        """
        x, scale, left, top = letterbox(image, size)
        scores, boxes = self(x.to(self.stem.weight))
        height, width = image.shape[-2:]
        limit = boxes.new_tensor([width, height, width, height])
        boxes = (boxes[0] - boxes.new_tensor([left, top, left, top])) / scale
        boxes = torch.minimum(boxes.clamp(min=0), limit)
        anchor, class_ids = (scores[0] > score_threshold).nonzero(as_tuple=True)
        scores, boxes = scores[0, anchor, class_ids], boxes[anchor]
        keep = class_nms(boxes, scores, class_ids, iou_threshold, max_detections)
        return Detections(boxes[keep], scores[keep], class_ids[keep])


def _decode_sides(sides: Tensor, stride: int, height: int, width: int) -> Tensor:
    """Side logits (B, height*width, 4, 11) -> boxes (B, height*width, 4) in input pixels.

    Each side's distance from the point is the mean of its distribution over 0..10 strides, in the order
    left, top, right, bottom; the points are the centres of the level's cells.
    """
    bins = torch.arange(_NUM_BINS, device=sides.device, dtype=sides.dtype)
    distance = (sides.softmax(dim=-1) @ bins) * stride  # (B, height*width, 4)
    ys = (torch.arange(height, device=sides.device, dtype=sides.dtype) + 0.5) * stride
    xs = (torch.arange(width, device=sides.device, dtype=sides.dtype) + 0.5) * stride
    grid_y, grid_x = torch.meshgrid(ys, xs, indexing="ij")
    centre = torch.stack([grid_x.flatten(), grid_y.flatten()], dim=-1)  # (height*width, 2)
    return torch.cat([centre - distance[..., :2], centre + distance[..., 2:]], dim=-1)


def letterbox(image: Tensor, size: int = IMAGE_SIZE) -> tuple[Tensor, float, int, int]:
    """Fit a picture into a black square, keeping its aspect ratio, and normalise it.

    Args:
        image: (3, H, W) RGB, any dtype, values 0..255.
        size: side of the square, a multiple of 32.

    Returns:
        (1, 3, size, size) float32 in B, G, R order, then scale, left and top: the picture's point (x, y)
        lies at (x * scale + left, y * scale + top).
    """
    if size % STRIDES[-1]:
        raise ValueError(f"size must be a multiple of {STRIDES[-1]}, got {size}")
    height, width = image.shape[-2:]
    scale = size / max(height, width)
    inner = (max(1, round(height * scale)), max(1, round(width * scale)))
    x = image[None].to(torch.float32)
    if inner != (height, width):
        x = F.interpolate(x, inner, mode="bilinear", align_corners=False, antialias=True)
    top, left = (size - inner[0]) // 2, (size - inner[1]) // 2
    # Black before the normalisation, as in training.
    x = F.pad(x, (left, size - inner[1] - left, top, size - inner[0] - top))
    mean = x.new_tensor(PIXEL_MEAN_BGR).view(1, 3, 1, 1)
    std = x.new_tensor(PIXEL_STD_BGR).view(1, 3, 1, 1)
    return (x.flip(1) - mean) / std, scale, left, top


def class_nms(boxes: Tensor, scores: Tensor, class_ids: Tensor, iou_threshold: float, max_detections: int) -> Tensor:
    """Greedy non-maximum suppression within each class (torchvision is not a dependency).

    Args:
        boxes: (N, 4) x0, y0, x1, y1; scores: (N,); class_ids: (N,).
        iou_threshold: boxes of one class overlapping a better one by more than this IoU are dropped.
        max_detections: stop after this many.

    Returns:
        (K,) indices to keep, best score first.
    """
    order = scores.argsort(descending=True, stable=True)
    areas = (boxes[:, 2] - boxes[:, 0]).clamp(min=0) * (boxes[:, 3] - boxes[:, 1]).clamp(min=0)
    keep: list[int] = []
    while len(order) and len(keep) < max_detections:
        best, rest = order[0], order[1:]
        keep.append(int(best))
        low = torch.maximum(boxes[best, :2], boxes[rest, :2])
        high = torch.minimum(boxes[best, 2:], boxes[rest, 2:])
        overlap = (high - low).clamp(min=0).prod(dim=1)
        iou = overlap / (areas[best] + areas[rest] - overlap).clamp(min=1e-9)
        order = rest[(iou <= iou_threshold) | (class_ids[rest] != class_ids[best])]
    return torch.tensor(keep, dtype=torch.long, device=boxes.device)
