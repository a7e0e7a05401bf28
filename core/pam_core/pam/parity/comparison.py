"""How far tensors are from the recorded ones, and how far they may be.

A tensor is recorded whole (`NAME.i`, i counting the calls of that stage), thinned out (`NAME.i@sN`: every N-th
element of the last two axes, or of the tokens), or as mean, deviation, mean magnitude, minimum and maximum
(`NAME.i#stats`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

TOLERANCE = 2e-4
MASK_TOLERANCE = 1e-3
HALF_SLACK = 3.0
"""Largest differences, relative to the largest value of a tensor; of a frame's mask, the share of pixels. In bfloat16
a tensor may be this many times as far from the reference's as the reference's own float32 is: the roundings of two
implementations have nothing to do with each other.
"""

OTHER_GRADIENT_TOLERANCE = 1e-3
"""With other kernels than the recorded ones, for norms and elements of gradients. The logit of presence, a single
value that is often near 0, is measured against 1 then.
"""

PRESENCE = frozenset({"object_score_logits", "object_scores"})
MASKS = frozenset({"dec_masks4", "low_res_mask", "mask_logits"})
NORM = "grad_norm."
PACKED = "video_masks_packed"
BY_TOKEN = frozenset({"visual_tokens_out", "proj_img", "inputs_embeds"})
EXACT = frozenset({"generated_ids", "input_ids", "labels", "attention_mask"})


@dataclass(frozen=True)
class Difference:
    """How far one tensor is from the recorded one: `absolute`, and `relative` to the recorded one's largest value."""

    name: str
    absolute: float
    relative: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.relative <= self.tolerance


@dataclass(frozen=True)
class CaseReport:
    """What became of a case. `ids_equal` is None where ids are not compared; `error` says why it could not be run."""

    name: str
    differences: Sequence[Difference] = field(default_factory=tuple)
    ids_equal: bool | None = None
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.error is None and self.ids_equal is not False and all(d.ok for d in self.differences)

    def to_json(self) -> dict[str, Any]:
        return {
            "case": self.name,
            "ok": self.ok,
            "ids_equal": self.ids_equal,
            "error": self.error,
            "tensors": {
                d.name: {"absolute": d.absolute, "relative": d.relative, "ok": d.ok} for d in self.differences
            },
        }


def compare(
    name: str, got: Mapping[str, Tensor], recorded: Mapping[str, Tensor], texts_equal: bool, same_kernels: bool
) -> CaseReport:
    """Judge a case in float32, to the letter where torch's kernels are those it was recorded with."""
    exact = [torch.equal(got[key].cpu().to(recorded[key].dtype), recorded[key]) for key in recorded if key in EXACT]
    # Some gradients are nothing but rounding (keys' biases, say): a norm is judged against the largest of them too.
    norm = 1e-3 * max((float(value) for key, value in recorded.items() if key.startswith(NORM)), default=0.0)
    differences = []
    for key in recorded:
        stage = key.split(".", maxsplit=1)[0]
        tolerance = MASK_TOLERANCE if stage in MASKS else TOLERANCE
        least = norm if key.startswith(NORM) else 0.0
        if not same_kernels:
            tolerance = OTHER_GRADIENT_TOLERANCE if stage.startswith("grad") else tolerance
            least = 1.0 if stage in PRESENCE else least
        if key not in EXACT:
            differences.append(_difference(key, got, recorded[key], tolerance, least))
    return CaseReport(name, differences, all(exact) and texts_equal if exact else None)


def compare_half(
    name: str, got: Mapping[str, Tensor], recorded: Mapping[str, Tensor], single: Mapping[str, Tensor]
) -> CaseReport:
    """One rounding may turn a word, and all the words after it: neither ids nor the logits of later steps."""
    differences = []
    for key in recorded:
        if key in single and single[key].shape == recorded[key].shape and key not in {*EXACT, "step_logits"}:
            apart = float((single[key].double() - recorded[key].double()).abs().max())
            largest = float(recorded[key].double().abs().max())
            allowed = TOLERANCE + HALF_SLACK * apart / max(largest, 1e-12)
            differences.append(_difference(key, got, recorded[key], allowed))
    return CaseReport(name, differences)


def _difference(
    key: str, got: Mapping[str, Tensor], recorded: Tensor, tolerance: float, least: float = 0.0
) -> Difference:
    """The largest difference, also relative to the largest value or, where that is less, to `least`."""
    name, _, thinned = key.partition("@s")
    name, _, stats = name.partition("#")
    if name == PACKED and name in got:
        pixels = got[name].flatten(1).cpu()  # (frames, H * W)
        bits = torch.from_numpy(np.unpackbits(recorded.numpy(), axis=1)[:, : pixels.shape[1]]).bool()
        worst = float((pixels != bits).float().mean(dim=1).max())
        return Difference(f"{key} (share of pixels)", worst, worst, tolerance)
    if name not in got:
        return Difference(f"{key} (not computed)", float("inf"), float("inf"), tolerance)
    tensor, recorded = got[name].detach().cpu().double(), recorded.double()
    largest = max(float(tensor.abs().max()), least, 1e-12)
    if stats:
        tensor = torch.stack(
            [tensor.mean(), tensor.std(correction=0), tensor.abs().mean(), tensor.min(), tensor.max()]
        )
    elif thinned:
        step = int(thinned)
        by_token = name.split(".")[0] in BY_TOKEN
        tensor = tensor[:, ::step] if by_token else tensor[..., ::step, ::step]
    if tensor.shape != recorded.shape:
        wanted = f"{key} ({list(tensor.shape)} for {list(recorded.shape)})"
        return Difference(wanted, float("inf"), float("inf"), tolerance)
    absolute = float((tensor - recorded).abs().max())
    return Difference(key, absolute, absolute / largest, tolerance)
