"""SAM 2's memory: objects tracked from frame to frame, all of them as one batch.

Each object remembers what it looked like where it was prompted, on the last six frames, and, as a pointer, on the
last fifteen; its features on the next frame are conditioned on that. What is older is dropped, so memory does not
grow with the video. Frames are counted as they are given: forward and backward are the same here. Knows tensors,
no pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from sam2.modeling.sam2_utils import get_1d_sine_pe
from torch import Tensor
from torch.nn import functional as F

from pam_core.pam.memory_attention import attend_memory
from pam_core.pam.vision import Decoded, ImageFeatures, PromptTensors, VisionTower

MOST_POINTERS = 16
MOST_PROMPTED = 8
"""Prompted frames that are remembered for good: the first and the latest; SAM 2 remembers all of them."""

LOGIT_LIMIT = 32.0
"""Logits of an earlier mask are cut here before they go in again, as SAM 2 does."""

BATCH = 8


@dataclass(frozen=True)
class TrackingRules:
    """Where the reference deviates from SAM 2, on request: it rounds the memory of prompted frames to bfloat16, and
    measures the age of pointers against the length of its clip where that is below 16 frames.
    """

    round_prompted: bool = False
    clip_length: int = MOST_POINTERS

    @property
    def most_pointers(self) -> int:
        return min(self.clip_length, MOST_POINTERS)


SAM2_RULES = TrackingRules()


@dataclass(frozen=True)
class Memory:
    """One object on one frame: features (m, g, g), None once too old to be attended to, and a pointer (d,)."""

    features: Tensor | None
    pointer: Tensor


@dataclass
class ObjectMemory:
    """What is remembered of one object, by the count of the frame."""

    prompted: dict[int, Memory] = field(default_factory=dict)
    seen: dict[int, Memory] = field(default_factory=dict)
    logits: Tensor | None = None

    def remember(self, now: int, memory: Memory, *, prompted: bool, maps: int) -> None:
        """Keep a frame; drop what no later one attends to. One attends to the features of `maps` frames, all prompted
        ones counted as one.
        """
        self.seen.pop(now, None)
        (self.prompted if prompted else self.seen)[now] = memory
        while len(self.prompted) > MOST_PROMPTED:
            del self.prompted[sorted(self.prompted)[1]]
        for then in [then for then in self.seen if now - then >= MOST_POINTERS - 1]:
            del self.seen[then]
        for then in [then for then in self.seen if now - then >= maps - 1]:
            self.seen[then] = replace(self.seen[then], features=None)

    def attended(
        self, now: int, maps: int, most_pointers: int
    ) -> tuple[list[tuple[int, Tensor]], list[tuple[int, Tensor]]]:
        """What frame `now` attends to: features by slot in time (0: prompted), and pointers with their age."""
        features = [(0, memory.features) for then, memory in self.prompted.items() if then != now]
        recent = [(slot, self.seen.get(now - (maps - slot))) for slot in range(1, maps)]
        features += [(slot, memory.features) for slot, memory in recent if memory is not None]
        pointers = [(now - then, memory.pointer) for then, memory in self.prompted.items() if then < now]
        pointers += [(age, self.seen[now - age].pointer) for age in range(1, most_pointers) if now - age in self.seen]
        return [(slot, tensor) for slot, tensor in features if tensor is not None], pointers


@dataclass(frozen=True)
class TrackedFrame:
    """Objects on one frame: their ids, the mask decoder's work, the logits of their masks
    (N, 1, 4g, 4g), the logits of presence (N, 1), and what is remembered (N, m, g, g) and (N, d).
    """

    ids: Sequence[int]
    decoded: Decoded
    logits: Tensor
    presence: Tensor
    memory: Tensor
    pointers: Tensor


class SamTracker:
    """Objects by id over the frames of one video. Each frame is encoded by the caller, once."""

    def __init__(self, vision: VisionTower, rules: TrackingRules = SAM2_RULES) -> None:
        self.vision = vision
        self.rules = rules
        self.objects: dict[int, ObjectMemory] = {}
        self.now = 0

    @torch.inference_mode()
    def prompt(self, features: ImageFeatures, ids: Sequence[int], prompts: PromptTensors) -> TrackedFrame:
        """Begin to track objects on the current frame, or correct tracked ones, which keep their memory."""
        known = [index for index, number in enumerate(ids) if self._has_past(number)]
        if known and len(known) < len(ids):
            raise ValueError("Got new and known objects together; wanted them in calls of their own.")
        if known and not prompts.mask_only:
            objects = [self.objects[number] for number in ids]
            before = [o.logits for o in objects if o.logits is not None]
            if prompts.masks is None and len(before) == len(objects):
                prompts = replace(prompts, logits=torch.stack(before).clamp(-LOGIT_LIMIT, LOGIT_LIMIT))
            decoded = self.vision.decode(features, self._condition(features, objects), prompts)
            logits, presence = decoded.answer, decoded.presence
        else:
            decoded, logits, presence = self.vision.answer_prompts(features, prompts)
        return self._remember(features, ids, decoded, logits, presence, prompted=True)

    @torch.inference_mode()
    def step(self, features: ImageFeatures) -> TrackedFrame | None:
        """Track every object on the next frame; None where there is none."""
        self.now += 1
        ids = sorted(self.objects)
        parts = []
        for start in range(0, len(ids), BATCH):
            chosen = ids[start : start + BATCH]
            conditioned = self._condition(features, [self.objects[number] for number in chosen])
            empty = PromptTensors(conditioned.new_zeros(len(chosen), 0, 2), torch.zeros(len(chosen), 0).long())
            decoded = self.vision.decode(features, conditioned, empty)
            parts.append(self._remember(features, chosen, decoded, decoded.answer, decoded.presence, prompted=False))
        return _joined(parts) if parts else None

    def _has_past(self, number: int) -> bool:
        memory = self.objects.get(number)
        return memory is not None and any(then != self.now for then in (*memory.prompted, *memory.seen))

    def _remember(
        self,
        features: ImageFeatures,
        ids: Sequence[int],
        decoded: Decoded,
        logits: Tensor,
        presence: Tensor,
        *,
        prompted: bool,
    ) -> TrackedFrame:
        sam = self.vision.sam
        size = (self.vision.config.image_size, self.vision.config.image_size)
        grid = features.coarse.shape[2:]
        current = features.coarse.flatten(2).permute(2, 0, 1).expand(-1, len(ids), -1)
        memory, _ = sam._encode_new_memory(
            current_vision_feats=[current],
            feat_sizes=[grid],
            pred_masks_high_res=F.interpolate(logits, size, mode="bilinear", align_corners=False),
            object_score_logits=presence,
            is_mask_from_pts=prompted,
        )
        pointers = self.vision.object_pointer(decoded)
        kept = memory.to(torch.bfloat16).float() if prompted and self.rules.round_prompted else memory
        for row, number in enumerate(ids):
            remembered = self.objects.setdefault(number, ObjectMemory())
            remembered.logits = logits[row]
            remembered.remember(
                self.now,
                Memory(kept[row], pointers[row]),
                prompted=prompted,
                maps=self.vision.config.memories,
            )
        return TrackedFrame(ids, decoded, logits, presence, memory, pointers)

    def _condition(self, features: ImageFeatures, objects: Sequence[ObjectMemory]) -> Tensor:
        """The frame's coarse features conditioned on the memory of each object (N, d, g, g)."""
        attended = [o.attended(self.now, self.vision.config.memories, self.rules.most_pointers) for o in objects]
        groups: dict[tuple[tuple[int, ...], int], list[int]] = {}
        for index, (maps, pointers) in enumerate(attended):
            groups.setdefault((tuple(slot for slot, _ in maps), len(pointers)), []).append(index)
        found: dict[int, Tensor] = {}
        for (slots, _), group in groups.items():
            conditioned = self._attend(features, slots, [attended[index] for index in group])
            found.update(zip(group, conditioned, strict=True))
        return torch.stack([found[index] for index in range(len(objects))])

    def _attend(
        self,
        features: ImageFeatures,
        slots: Sequence[int],
        attended: Sequence[tuple[list[tuple[int, Tensor]], list[tuple[int, Tensor]]]],
    ) -> Tensor:
        sam, count = self.vision.sam, len(attended)
        grid = features.coarse.shape[2:]
        maps = torch.stack([torch.stack([tensor for _, tensor in maps]) for maps, _ in attended])  # (N, M, m, g, g)
        position = sam.memory_encoder.position_encoding(maps[0, :1]).flatten(2).permute(2, 0, 1)  # (g * g, 1, m)
        times = [sam.maskmem_tpos_enc[self.vision.config.memories - slot - 1] for slot in slots]
        memory = [maps.flatten(3).permute(1, 3, 0, 2).flatten(0, 1)]  # (M * g * g, N, m)
        places = [torch.cat([position + time for time in times]).expand(-1, count, -1)]
        pieces = 0
        if attended[0][1]:
            pointers = torch.stack([torch.stack([p for _, p in them]) for _, them in attended], dim=1)  # (P, N, d)
            ages = torch.tensor([[age for age, _ in them] for _, them in attended], device=pointers.device).T
            sines = get_1d_sine_pe(ages / (self.rules.most_pointers - 1), dim=pointers.shape[2])
            split = pointers.shape[2] // maps.shape[2]
            split_up = pointers.reshape(len(pointers), count, split, -1)
            memory.append(split_up.transpose(1, 2).flatten(0, 1))  # (P * split, N, m)
            places.append(sam.obj_ptr_tpos_proj(sines).repeat_interleave(split, dim=0))
            pieces = len(memory[1])
        out = attend_memory(
            sam.memory_attention,
            features.coarse.flatten(2).transpose(1, 2),
            features.position.flatten(2).transpose(1, 2),
            torch.cat(memory).transpose(0, 1),
            torch.cat(places).transpose(0, 1),
            pieces,
        )
        return out.transpose(1, 2).reshape(count, -1, *grid)


def _joined(parts: Sequence[TrackedFrame]) -> TrackedFrame:
    if len(parts) == 1:
        return parts[0]
    decoded = Decoded(
        **{name: torch.cat([getattr(part.decoded, name) for part in parts]) for name in Decoded.__dataclass_fields__}
    )
    return TrackedFrame(
        [number for part in parts for number in part.ids],
        decoded,
        *(
            torch.cat([getattr(part, name) for part in parts])
            for name in ("logits", "presence", "memory", "pointers")
        ),
    )
