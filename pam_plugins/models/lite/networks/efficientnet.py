"""EfficientNet-Lite2, an ImageNet-1k classifier, with its batch norms folded into the convolutions.

Sources of the architecture: "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"
(Tan and Le, 2019) and its Lite variants in
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite (Apache-2.0): no
squeeze-and-excitation, ReLU6 instead of swish, stem and head of fixed width, first and last stage of fixed
depth.  Lite2 multiplies the widths by 1.1 and the depths by 1.2 and takes 260 x 260 pixels.  Written anew
for this project.

The weights come from TensorFlow, hence TF's "SAME" padding, which is asymmetric for strided convolutions:
with PyTorch's symmetric padding the accuracy suffers.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

IMAGE_SIZE = 260
NUM_FEATURES = 1280
NUM_CLASSES = 1000

#: Pixels 0..255 are normalised as (x - PIXEL_MEAN) / PIXEL_STD, the same for all channels.
PIXEL_MEAN = 127.0
PIXEL_STD = 128.0

_WIDTH = 1.1
_DEPTH = 1.2
_STEM_CHANNELS = 32

# Stages of EfficientNet-B0: repeats, kernel, stride, expansion, output channels.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def _scaled_channels(channels: int, divisor: int = 8) -> int:
    """Channels times the width multiplier, rounded to a multiple of ``divisor`` but never below 90 %."""
    scaled = channels * _WIDTH
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "SAME" padding: output side = ceil(input side / stride).

    Where the padding is odd, the extra row or column goes to the bottom or right.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:  # the padding is even, and the convolution pads without a copy
            return F.conv2d(x, self.weight, self.bias, padding=kernel // 2, groups=self.groups)
        pads = []
        for side in (x.shape[-1], x.shape[-2]):
            total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(x, pads))


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution and linear 1x1 projection, with a skip where shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.expand = SameConv2d(inputs, hidden, 1) if expansion != 1 else None
        self.depthwise = SameConv2d(hidden, hidden, kernel, stride, groups=hidden)
        self.project = SameConv2d(hidden, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        y = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        y = F.relu6(self.depthwise(y), inplace=True)
        y = self.project(y)
        return x + y if self.residual else y


class EfficientNetLite2(nn.Module):
    """(B, 3, 260, 260) normalised RGB -> (B, 1000) ImageNet-1k logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv2d(3, _STEM_CHANNELS, 3, 2)
        blocks = []
        inputs = _STEM_CHANNELS
        for i, (repeats, kernel, stride, expansion, channels) in enumerate(_STAGES):
            outputs = _scaled_channels(channels)
            inner = 0 < i < len(_STAGES) - 1
            for repeat in range(math.ceil(repeats * _DEPTH) if inner else repeats):
                step = stride if repeat == 0 else 1
                blocks.append(InvertedResidual(inputs, outputs, kernel, step, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = SameConv2d(inputs, NUM_FEATURES, 1)
        self.classifier = nn.Linear(NUM_FEATURES, NUM_CLASSES)

    def feature_map(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1280, ceil(H/32), ceil(W/32)), the last convolution's output."""
        x = F.relu6(self.stem(x), inplace=True)
        return F.relu6(self.head(self.blocks(x)), inplace=True)

    def pooled_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1280), the mean of the feature map over the picture."""
        return self.feature_map(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 260, 260) -> (B, 1000) logits; the classes are in the usual ILSVRC-2012 order."""
        return self.classifier(self.pooled_features(x))


def normalize(pixels: Tensor) -> Tensor:
    """Square crops (B, 3, 260, 260) with values 0..255 as the network wants them: float32, about -1..1."""
    return (pixels.float() - PIXEL_MEAN) / PIXEL_STD
