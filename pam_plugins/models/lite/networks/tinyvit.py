"""TinyViT-5M, the image encoder of MobileSAM, with its batch norms folded into the convolutions.

Sources of the architecture: "TinyViT: Fast Pretraining Distillation for Small Vision Transformers"
(Wu et al., 2022, https://github.com/microsoft/Cream/tree/main/TinyViT, MIT) and "Faster Segment Anything"
(Zhang et al., 2023, https://github.com/ChaoningZhang/MobileSAM, Apache-2.0), which runs its last stage at
stride 16 and adds SAM's two-layer neck.  Written anew for this project; inference layers only (no dropout,
no stochastic depth, no batch norm).

Feature maps are channels first, (B, C, H, W), everywhere except inside an attention block.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: ImageNet mean and standard deviation per RGB channel for pixels in 0..255, as SAM uses them.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)

#: Side of the square frame the published weights were trained on, and the stride of the final features.
FRAME_SIZE = 1024
STRIDE = 16

# Per stage: channels, number of blocks, attention heads and attention window (stage 0 is convolutional).
_CHANNELS = (64, 128, 160, 320)
_DEPTHS = (2, 2, 6, 2)
_HEADS = (0, 4, 5, 10)
_WINDOWS = (0, 7, 14, 7)
_OUT_CHANNELS = 256


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution with "same" padding for odd kernels; its bias holds the folded batch norm."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)


class InvertedBottleneck(nn.Module):
    """MobileNetV2-style residual block of stage 0: 1x1 expand, 3x3 depthwise, 1x1 project, all with GELU."""

    def __init__(self, channels: int, expansion: int = 4) -> None:
        super().__init__()
        hidden = channels * expansion
        self.expand = _conv(channels, hidden)
        self.depthwise = _conv(hidden, hidden, kernel=3, groups=hidden)
        self.project = _conv(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        y = F.gelu(self.expand(x))
        y = F.gelu(self.depthwise(y))
        # The activation follows the addition, unlike MobileNetV2.
        return F.gelu(x + self.project(y))


class PatchMerging(nn.Module):
    """Changes the channels between stages and, with stride 2, halves the resolution (rounding up)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.expand = _conv(inputs, outputs)
        self.depthwise = _conv(outputs, outputs, kernel=3, stride=stride, groups=outputs)
        self.project = _conv(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        return self.project(F.gelu(self.depthwise(F.gelu(self.expand(x)))))


def _offset_index(window: int) -> Tensor:
    """(window^2, window^2) index of each token pair's |dy|, |dx| offset in the bias table."""
    coordinate = torch.arange(window)
    ys, xs = torch.meshgrid(coordinate, coordinate, indexing="ij")
    ys, xs = ys.flatten(), xs.flatten()
    # Counting the offsets as they occur from the first token on numbers them row by row.
    return (ys[:, None] - ys).abs() * window + (xs[:, None] - xs).abs()


class WindowAttention(nn.Module):
    """Multi-head self-attention within one window, with a learned bias per absolute (dy, dx) offset."""

    offset_index: Tensor

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        self.register_buffer("offset_index", _offset_index(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(windows, tokens, C) -> (windows, tokens, C), with tokens = window^2."""
        windows, tokens, channels = x.shape
        # Each head's query, key and value lie side by side: (windows, tokens, heads, 3 * head_dim).
        qkv = self.qkv(self.norm(x)).view(windows, tokens, self.heads, -1)
        query, key, value = (part.transpose(1, 2) for part in qkv.chunk(3, dim=-1))
        bias = self.attention_biases[:, self.offset_index]  # (heads, tokens, tokens)
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=bias[None].to(query.dtype))
        return self.proj(y.transpose(1, 2).reshape(windows, tokens, channels))


class Mlp(nn.Module):
    """Pre-norm two-layer perceptron with GELU, on the last dimension."""

    def __init__(self, channels: int, expansion: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, expansion * channels)
        self.fc2 = nn.Linear(expansion * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class TransformerBlock(nn.Module):
    """Window attention, a 3x3 depthwise convolution that joins the windows, and an MLP."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(channels, heads, window)
        self.local_conv = _conv(channels, channels, kernel=3, groups=channels)
        self.mlp = Mlp(channels)

    def _attend(self, x: Tensor) -> Tensor:
        """Attention in non-overlapping windows: (B, H, W, C) -> (B, H, W, C)."""
        batch, height, width, channels = x.shape
        window = self.window
        # The padding is zero *before* the norm and takes part in the attention unmasked: so were the
        # weights trained, and masking it would change the published results.
        padded = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
        rows, columns = padded.shape[1] // window, padded.shape[2] // window
        tiles = padded.view(batch, rows, window, columns, window, channels).transpose(2, 3)
        tiles = self.attn(tiles.reshape(-1, window * window, channels))
        tiles = tiles.view(batch, rows, columns, window, window, channels).transpose(2, 3)
        joined = tiles.reshape(batch, rows * window, columns * window, channels)
        return joined[:, :height, :width]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        tokens = x.permute(0, 2, 3, 1)  # (B, H, W, C)
        tokens = tokens + self._attend(tokens)
        tokens = self.local_conv(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return (tokens + self.mlp(tokens)).permute(0, 3, 1, 2)


class Stage(nn.Module):
    """A run of equal blocks, then the change to the next stage's channels (absent in the last one)."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample if downsample is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        return self.downsample(self.blocks(x))


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of a (B, C, H, W) map, as in SAM's neck."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        y = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return y.permute(0, 3, 1, 2)


class TinyViT(nn.Module):
    """MobileSAM's image encoder: (B, 3, H, W) normalised RGB -> (B, 256, ceil(H/16), ceil(W/16)).

    The weights were trained on 1024 x 1024 frames (see :func:`framed`), for which the output is
    (B, 256, 64, 64).  Any other size works too; smaller frames are faster and somewhat less exact.
    ``.to(memory_format=torch.channels_last)`` makes it about a sixth faster on a CPU.
    """

    def __init__(self) -> None:
        super().__init__()
        first = _CHANNELS[0]
        self.patch_embed = nn.Sequential(
            _conv(3, first // 2, kernel=3, stride=2), nn.GELU(), _conv(first // 2, first, kernel=3, stride=2)
        )
        stages = []
        for i, (channels, depth) in enumerate(zip(_CHANNELS, _DEPTHS, strict=True)):
            blocks: list[nn.Module] = []
            for _ in range(depth):
                if i == 0:
                    blocks.append(InvertedBottleneck(channels))
                else:
                    blocks.append(TransformerBlock(channels, _HEADS[i], _WINDOWS[i]))
            downsample = None
            if i + 1 < len(_CHANNELS):
                # MobileSAM keeps stride 16 from stage 2 on, where TinyViT itself would go to stride 32.
                stride = 1 if i == 2 else 2
                downsample = PatchMerging(channels, _CHANNELS[i + 1], stride)
            stages.append(Stage(blocks, downsample))
        self.stages = nn.ModuleList(stages)
        self.neck = nn.Sequential(
            nn.Conv2d(_CHANNELS[-1], _OUT_CHANNELS, 1, bias=False),
            LayerNorm2d(_OUT_CHANNELS),
            nn.Conv2d(_OUT_CHANNELS, _OUT_CHANNELS, 3, padding=1, bias=False),
            LayerNorm2d(_OUT_CHANNELS),
        )

    def forward_features(self, x: Tensor) -> list[Tensor]:
        """The stages' outputs, for a 1024 x 1024 frame (128,128,128), (160,64,64), (320,64,64), (320,64,64).

        Each is (B, C, H', W'); the shapes above leave out B.
        """
        x = self.patch_embed(x)  # (B, 64, H/4, W/4)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> image embedding (B, 256, ceil(H/16), ceil(W/16)) for the mask decoder."""
        return self.neck(self.forward_features(x)[-1])


def framed(pixels: Tensor, size: int = FRAME_SIZE) -> Tensor:
    """Bring a picture that fits the encoder's square frame into it.

    Args:
        pixels: (3, H, W) RGB, any dtype, values 0..255, its long side ``size``.
        size: side of the square frame in pixels.

    Returns:
        (1, 3, size, size) float32, normalised, and zero-padded on the right and at the bottom (the padding is
        zero *after* the normalisation).
    """
    height, width = pixels.shape[-2:]
    x = pixels.to(torch.float32)
    mean, std = x.new_tensor(PIXEL_MEAN), x.new_tensor(PIXEL_STD)
    x = (x - mean[:, None, None]) / std[:, None, None]
    return F.pad(x, (0, size - width, 0, size - height))[None]
