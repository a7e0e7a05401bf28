"""SAM 2.1 as PAM uses it: a picture is encoded once, every prompt costs one run of the mask decoder.

Built from the modules of the `sam2` package. Unlike its predictors, this knows no files, keeps no state between
calls, decodes many prompts at once, and hands out what the Semantic Perceiver needs: the image embedding after the
decoder's two-way transformer and the output tokens. One mask is made a prompt, as PAM was trained. Knows no
language model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
from sam2.modeling.position_encoding import PositionEmbeddingSine
from sam2.modeling.sam.transformer import RoPEAttention
from sam2.modeling.sam2_base import NO_OBJ_SCORE, SAM2Base
from torch import Tensor, nn
from torch.nn import functional as F

from pam_core.pam.config import VisionConfig
from pam_core.types import Picture

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

STABILITY_OFFSET = 0.05
MIN_STABILITY = 0.98
"""A single mask is stable where cutting its logits this far above and below zero gives IoUs from here on."""

MASK_SCALE, MASK_BIAS = 20.0, -10.0
"""A mask given as a prompt becomes logits of +10 inside and -10 outside (SAM 2's own figures)."""


@dataclass(frozen=True)
class ImageFeatures:
    """What the encoder makes of pictures: `fine` (B, d/8, 4g, 4g) and (B, d/4, 2g, 2g) for the mask decoder's
    upscaling, `coarse` (B, d, g, g) and its `position` encoding of the same shape; g is the grid, 64.
    """

    fine: tuple[Tensor, Tensor]
    coarse: Tensor
    position: Tensor

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in (*self.fine, self.coarse, self.position))

    def split(self) -> list[ImageFeatures]:
        """The features of each picture by itself, as copies: one that is kept does not keep the batch."""
        if len(self.coarse) == 1:
            return [self]
        rows = [slice(row, row + 1) for row in range(len(self.coarse))]
        first, second = self.fine
        return [
            ImageFeatures(
                (first[row].clone(), second[row].clone()), self.coarse[row].clone(), self.position[row].clone()
            )
            for row in rows
        ]


@dataclass(frozen=True)
class PromptTensors:
    """N prompts of one shape: `points` (N, P, 2) in pixels of the encoder's picture with `labels` (N, P): 1, 0,
    or 2 and 3 for a box's corners. `masks` (N, 1, S, S), 1 inside, or None. Without points, P is 0. `logits`
    (N, 1, 4g, 4g) of an earlier answer may stand in for masks.
    """

    points: Tensor
    labels: Tensor
    masks: Tensor | None = None
    logits: Tensor | None = None

    @property
    def mask_only(self) -> bool:
        return self.masks is not None and self.points.shape[1] == 0


@dataclass(frozen=True)
class Decoded:
    """The mask decoder's answers to N prompts, raw.

    `before` and `after`: image features (N, d, g, g) that went in and that the two-way transformer left. `tokens`
    (N, T, d): all output tokens (presence, IoU, four masks, prompt). `logits` (N, 4, 4g, 4g) and `ious` (N, 4) of
    the four masks, of which the first is the answer; `presence` (N, 1), a logit, positive where there is an object.
    """

    before: Tensor
    after: Tensor
    tokens: Tensor
    logits: Tensor
    ious: Tensor
    presence: Tensor

    @property
    def mask_tokens(self) -> Tensor:
        """(N, 4, d)"""
        return self.tokens[:, 2:6]

    @property
    def stable_tokens(self) -> Tensor:
        """What PAM is fed (N, 2, d): the token of the mask that stability would choose, and that of the first."""
        chosen = stable_choice(self.logits, self.ious)
        rows = torch.arange(len(chosen), device=chosen.device)
        return torch.stack([self.mask_tokens[rows, chosen], self.mask_tokens[:, 0]], dim=1)

    @property
    def answer(self) -> Tensor:
        """Logits of the answers (N, 1, 4g, 4g); nothing where no object is present."""
        present = (self.presence > 0)[:, None, None]
        return torch.where(present, self.logits[:, :1], NO_OBJ_SCORE)


def stability(logits: Tensor, offset: float = STABILITY_OFFSET) -> Tensor:
    """IoU of the masks cut `offset` above and below zero, (..., H, W) -> (...); 1 where both are empty."""
    inner = (logits > offset).sum(dim=(-2, -1)).float()
    outer = (logits > -offset).sum(dim=(-2, -1)).float()
    return torch.where(outer > 0, inner / outer, 1.0)


def stable_choice(logits: Tensor, ious: Tensor) -> Tensor:
    """Which of four masks SAM 2 would show, (N, 4, H, W) and (N, 4) -> (N,): the first where it is stable, else the
    one of the others with the best predicted IoU.
    """
    return torch.where(stability(logits[:, 0]) >= MIN_STABILITY, 0, ious[:, 1:].argmax(dim=1) + 1)


def preprocess(picture: Picture, size: int) -> Tensor:
    """An RGB picture (H, W, 3) as the encoder's input (3, size, size), float32; its aspect ratio is not kept."""
    resized = np.asarray(Image.fromarray(picture).resize((size, size)))  # bicubic, Pillow's default
    pixels = torch.from_numpy(resized / 255.0).float().permute(2, 0, 1)
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


class VisionTower(nn.Module):
    """SAM 2.1; its parameters are named as in Meta's checkpoints, under `sam`.

    The image encoder, nine tenths of the work, may run in half precision; everything after it is float32.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.sam = build_sam2(config)

    @property
    def device(self) -> torch.device:
        return self.sam.no_mem_embed.device

    def encode(self, pixels: Tensor) -> ImageFeatures:
        """Pictures (B, 3, S, S) from `preprocess` -> their features, float32."""
        weight = self.sam.image_encoder.trunk.patch_embed.proj.weight
        out = self.sam.image_encoder(pixels.to(weight.device, weight.dtype))
        first, second, coarse = (level.float() for level in out["backbone_fpn"])
        decoder = self.sam.sam_mask_decoder
        fine = (decoder.conv_s0(first), decoder.conv_s1(second))
        return ImageFeatures(fine, coarse, out["vision_pos_enc"][-1].float())

    def unconditioned(self, features: ImageFeatures) -> Tensor:
        """The coarse features of a picture, or of a frame that is prompted: no memory of other frames goes in."""
        return features.coarse + self.sam.no_mem_embed.view(1, -1, 1, 1)

    def embed_prompts(self, prompts: PromptTensors) -> tuple[Tensor, Tensor]:
        """Prompts -> sparse (N, P', d) and dense (N, d, g, g) embeddings."""
        points, labels = prompts.points.to(self.device), prompts.labels.to(self.device)
        if points.shape[1] == 0:  # SAM 2 stands in one point that is none; its prompt encoder adds another
            points, labels = points.new_zeros(len(points), 1, 2), -labels.new_ones(len(points), 1)
        masks = prompts.masks
        if masks is not None:
            masks = self.sam.mask_downsample(masks.to(self.device))
        elif prompts.logits is not None:
            masks = prompts.logits
        sparse, dense = self.sam.sam_prompt_encoder(points=(points, labels), boxes=None, masks=masks)
        return sparse, dense

    def decode(self, features: ImageFeatures, conditioned: Tensor, prompts: PromptTensors) -> Decoded:
        """Answer N prompts on one picture or frame, whose `conditioned` coarse features are (1 or N, d, g, g)."""
        sam, decoder = self.sam, self.sam.sam_mask_decoder
        sparse, dense = self.embed_prompts(prompts)
        count = len(sparse)
        given = torch.cat([decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight])
        source = conditioned + dense
        position = sam.sam_prompt_encoder.get_dense_pe().expand_as(source)
        queries = torch.cat([given.expand(count, -1, -1), sparse], dim=1)
        tokens, keys = decoder.transformer(source, position, queries)
        after = keys.transpose(1, 2).unflatten(2, source.shape[2:])

        grow, norm, act, grow_again, act_again = decoder.output_upscaling
        upscaled = act(norm(grow(after) + features.fine[1]))
        upscaled = act_again(grow_again(upscaled) + features.fine[0])
        weights = [mlp(tokens[:, 2 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)]
        return Decoded(
            before=conditioned.expand(count, -1, -1, -1),
            after=after,
            tokens=tokens,
            logits=torch.einsum("nmc,nchw->nmhw", torch.stack(weights, dim=1), upscaled),
            ious=decoder.iou_prediction_head(tokens[:, 1]),
            presence=decoder.pred_obj_score_head(tokens[:, 0]),
        )

    def answer_prompts(self, features: ImageFeatures, prompts: PromptTensors) -> tuple[Decoded, Tensor, Tensor]:
        """N prompts on one picture -> the decoder's work, logits of the masks (N, 1, 4g, 4g) and presence (N, 1).

        A mask that is the whole prompt is the answer itself, and SAM 2 decodes it without the no-memory embedding.
        """
        if not prompts.mask_only:
            decoded = self.decode(features, self.unconditioned(features), prompts)
            return decoded, decoded.answer, decoded.presence
        assert prompts.masks is not None
        decoded = self.decode(features, features.coarse, prompts)
        masks = prompts.masks.to(self.device)
        size = (self.config.grid * 4, self.config.grid * 4)
        logits = F.interpolate(masks * MASK_SCALE + MASK_BIAS, size, mode="bilinear", antialias=True)
        there = masks.flatten(1).any(dim=1, keepdim=True).float()
        return decoded, logits, there * MASK_SCALE + MASK_BIAS

    def object_pointer(self, decoded: Decoded) -> Tensor:
        """What SAM 2 remembers of an object, besides its mask (N, d)."""
        there = (decoded.presence > 0).float()
        return there * self.sam.obj_ptr_proj(decoded.mask_tokens[:, 0]) + (1 - there) * self.sam.no_obj_ptr


def full_size(logits: Tensor, height: int, width: int) -> Tensor:
    """Mask logits (N, 1, h, w) at the picture's size (N, 1, height, width)."""
    return F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)


def build_sam2(config: VisionConfig) -> SAM2Base:
    """SAM 2.1 of the given size with random weights, with the settings PAM was trained with."""
    dim = config.dim

    def sine(features: int) -> PositionEmbeddingSine:
        return PositionEmbeddingSine(features, normalize=True, scale=None, temperature=10000)

    def rope(**options: object) -> RoPEAttention:
        grid = (config.grid, config.grid)
        return RoPEAttention(
            rope_theta=10000.0,
            feat_sizes=grid,
            embedding_dim=dim,
            num_heads=1,
            downsample_rate=1,
            dropout=0.1,
            **options,
        )

    trunk = Hiera(
        embed_dim=config.embed_dim,
        num_heads=config.heads,
        stages=config.stages,
        global_att_blocks=config.global_blocks,
        window_pos_embed_bkg_spatial_size=(config.background, config.background),
        window_spec=config.windows,
    )
    neck = FpnNeck(
        position_encoding=sine(dim),
        d_model=dim,
        backbone_channel_list=trunk.channel_list,
        fpn_top_down_levels=[2, 3],
        fpn_interp_model="nearest",
    )
    layer = MemoryAttentionLayer(
        activation="relu",
        d_model=dim,
        dim_feedforward=config.memory_mlp_dim,
        dropout=0.1,
        pos_enc_at_attn=False,
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
        self_attention=rope(),
        cross_attention=rope(rope_k_repeat=True, kv_in_dim=config.memory_dim),
    )
    block = CXBlock(dim, kernel_size=7, padding=3, layer_scale_init_value=1e-6, use_dwconv=True)
    return SAM2Base(
        image_encoder=ImageEncoder(trunk, neck, scalp=1),
        memory_attention=MemoryAttention(dim, pos_enc_at_input=True, layer=layer, num_layers=config.memory_layers),
        memory_encoder=MemoryEncoder(
            out_dim=config.memory_dim,
            in_dim=dim,
            position_encoding=sine(config.memory_dim),
            mask_downsampler=MaskDownSampler(embed_dim=dim, kernel_size=3, stride=2, padding=1),
            fuser=Fuser(block, num_layers=2),
        ),
        num_maskmem=config.memories,
        image_size=config.image_size,
        sigmoid_scale_for_mem_enc=MASK_SCALE,
        sigmoid_bias_for_mem_enc=MASK_BIAS,
        use_mask_input_as_output_without_sam=True,
        directly_add_no_mem_embed=True,
        no_obj_embed_spatial=True,
        use_high_res_features_in_sam=True,
        multimask_output_in_sam=False,
        iou_prediction_use_sigmoid=True,
        use_obj_ptrs_in_encoder=True,
        add_tpos_enc_to_obj_ptrs=True,
        proj_tpos_enc_in_obj_ptrs=True,
        use_signed_tpos_enc_to_obj_ptrs=True,
        only_obj_ptrs_in_the_past_for_eval=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        fixed_no_obj_ptr=True,
        multimask_output_for_tracking=True,
        use_multimask_token_for_obj_ptr=True,
        multimask_min_pt_num=0,
        multimask_max_pt_num=1,
        use_mlp_for_obj_ptr_proj=True,
        binarize_mask_from_pts_for_mem_enc=True,
    )
