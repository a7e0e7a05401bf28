"""SAM's prompt encoder and mask decoder, batched over prompts, returning all four masks of every prompt.

Source of the architecture: "Segment Anything" (Kirillov et al., 2023, appendix A). Names of parameters are the
original's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pam_core.pam.two_way_transformer import MLP, TwoWayTransformer

#: Labels of prompt points.
LABEL_PADDING = -1
LABEL_BACKGROUND = 0
LABEL_FOREGROUND = 1
LABEL_BOX_TOP_LEFT = 2
LABEL_BOX_BOTTOM_RIGHT = 3

#: Pixels of the encoder's frame per cell of the image embedding.
STRIDE = 16

DIM = 256

#: Outputs per prompt: token 0 is the single-mask output, tokens 1 to 3 are the multimask ones.
NUM_MASKS = 4


class MaskDecoder(nn.Module):
    """Prompts and an image embedding in, mask logits and their predicted IoUs out.

    Rows of a batch share one picture and are independent of each other.  Rows with different numbers of
    points could be padded with label -1, but a padding point is not neutral: it is a "not a point" token,
    which SAM was trained with and which takes part in the attention.  The reference appends exactly ONE such
    point, (0, 0) with label -1, to every prompt without a box, and none to a prompt with a box.  One more
    changes few pixels of each mask but the predicted IoUs by up to 0.14, and so which mask wins (for 3 of 19
    clicks measured).  So put only rows of the same length into one call.

    A box is two points, its corners, with labels 2 and 3; points may stand before or after it.

    Big batches gain nothing on a CPU: one thread took 0.06 s a row for 1 to 8 rows, 0.07 to 0.08 s for 32.
    """

    positions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("positions", torch.zeros(2, DIM // 2))
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, DIM) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, DIM)
        self.no_mask_embed = nn.Embedding(1, DIM)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, 2, stride=2),
            ChannelNorm(4),
            nn.GELU(),
            nn.Conv2d(4, 16, 2, stride=2),
            ChannelNorm(16),
            nn.GELU(),
            nn.Conv2d(16, DIM, 1),
        )
        self.iou_token = nn.Embedding(1, DIM)
        self.mask_tokens = nn.Embedding(NUM_MASKS, DIM)
        self.transformer = TwoWayTransformer(depth=2, dim=DIM, heads=8, mlp_dim=2048)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(DIM, DIM // 4, 2, stride=2),
            ChannelNorm(DIM // 4),
            nn.GELU(),
            nn.ConvTranspose2d(DIM // 4, DIM // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(DIM, DIM, DIM, DIM // 8) for _ in range(NUM_MASKS))
        self.iou_prediction_head = MLP(DIM, DIM, DIM, NUM_MASKS)

    def encode_points(self, points: Tensor, labels: Tensor, frame: tuple[int, int]) -> Tensor:
        """Embed prompt points.

        Args:
            points: (B, N, 2) float, x and y in pixels of the encoder's frame.
            labels: (B, N), see the ``LABEL_*`` constants.
            frame: height and width of the encoder's frame in pixels, (1024, 1024) for the published weights.

        Returns:
            (B, N, 256).
        """
        height, width = frame
        # +0.5: from a pixel's index to its centre.
        position = self._encode_positions((points + 0.5) / points.new_tensor([width, height]))  # (B, N, 256)
        table = torch.cat([*self.point_embeddings.parameters()])  # (4, 256)
        embedded = position + table[labels.clamp(min=0).long()]
        padding = (labels == LABEL_PADDING)[..., None]
        # A padding point loses its position altogether.
        return torch.where(padding, self.not_a_point_embed.weight, embedded)

    def _encode_positions(self, positions: Tensor) -> Tensor:
        """Random Fourier features of positions (..., 2) in 0..1 -> (..., 256)."""
        angles = 2 * torch.pi * ((2 * positions - 1) @ self.positions)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def encode_masks(self, mask_input: Tensor | None, height: int, width: int) -> Tensor:
        """Embed mask prompts: (B, 1, 4 * height, 4 * width) logits -> (B, 256, height, width).

        Without masks the answer is the learned "no mask" embedding, (1, 256, 1, 1), to be broadcast.
        """
        if mask_input is None:
            return self.no_mask_embed.weight[:, :, None, None]
        expected = (4 * height, 4 * width)
        if mask_input.ndim != 4 or mask_input.shape[1] != 1 or tuple(mask_input.shape[-2:]) != expected:
            raise ValueError(
                f"mask_input must be (B, 1, {expected[0]}, {expected[1]}) for an image embedding of "
                f"{height} x {width}, got {tuple(mask_input.shape)}"
            )
        return self.mask_downscaling(mask_input)

    def encode_grid(self, height: int, width: int) -> Tensor:
        """Positional encoding of the image embedding's cells, (1, height * width, 256)."""
        weight = self.no_mask_embed.weight
        ys = (torch.arange(height, device=weight.device, dtype=weight.dtype) + 0.5) / height
        xs = (torch.arange(width, device=weight.device, dtype=weight.dtype) + 0.5) / width
        grid_y, grid_x = torch.meshgrid(ys, xs, indexing="ij")
        return self._encode_positions(torch.stack([grid_x, grid_y], dim=-1)).flatten(0, 1)[None]

    def forward(
        self, image_embedding: Tensor, points: Tensor, labels: Tensor, mask_input: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Predict four masks for every prompt of one picture.

        Args:
            image_embedding: (1, 256, H, W) from :class:`~.tinyvit.TinyViT`; H = W = 64 for a 1024 frame.
            points: (B, N, 2) float, x and y in pixels of the encoder's frame (not of the picture).
            labels: (B, N), 1 foreground, 0 background, 2 box top left, 3 box bottom right, -1 padding.
            mask_input: (B, 1, 4H, 4W) logits of an earlier answer, or None.

        Returns:
            Logits (B, 4, 4H, 4W), foreground where > 0, and predicted IoUs (B, 4).  Output 0 is the
            single-mask token's; 1 to 3 are for ambiguous prompts (roughly part, whole, group).
        """
        batch, (height, width) = len(points), image_embedding.shape[-2:]
        frame = (STRIDE * height, STRIDE * width)
        prompt_tokens = self.encode_points(points, labels, frame)  # (B, N, 256)
        image = image_embedding + self.encode_masks(mask_input, height, width)
        image = image.expand(batch, -1, -1, -1)  # (B, 256, H, W)

        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])  # (5, 256)
        tokens = torch.cat([output_tokens.expand(batch, -1, -1), prompt_tokens], dim=1)  # (B, 5 + N, 256)
        cells = image.flatten(2).transpose(1, 2)  # (B, HW, 256)
        tokens, cells = self.transformer(tokens, cells, self.encode_grid(height, width))
        upscaled = self.output_upscaling(cells.transpose(1, 2).unflatten(2, (height, width)))  # (B, 32, 4H, 4W)
        mlps = self.output_hypernetworks_mlps
        kernels = torch.stack([mlp(tokens[:, 1 + i]) for i, mlp in enumerate(mlps)], dim=1)  # (B, 4, 32)
        logits = (kernels @ upscaled.flatten(2)).unflatten(2, upscaled.shape[-2:])
        return logits, self.iou_prediction_head(tokens[:, 0])


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias, 1e-6)
        return x.movedim(-1, 1)


def upscale_logits(logits: Tensor, size: tuple[int, int], frame: int = 1024) -> Tensor:
    """Resize low-resolution logits to the picture.

    Args:
        logits: (B, M, 256, 256).
        size: height and width of the picture, whose long side was scaled to ``frame`` pixels.
        frame: side of the encoder's square frame in pixels.

    Returns:
        (B, M, height, width) logits, the frame's padding cut off.
    """
    height, width = size
    scale = frame / max(height, width)
    inner = (max(1, round(height * scale)), max(1, round(width * scale)))
    x = F.interpolate(logits, (frame, frame), mode="bilinear", align_corners=False)
    return F.interpolate(x[..., : inner[0], : inner[1]], size, mode="bilinear", align_corners=False)
