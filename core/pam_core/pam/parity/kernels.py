"""The kernels of torch that the recorded cases were computed with.

Rounding depends on them, and SAM 2's mask decoder amplifies it. With the same ones a right model gives the very
numbers of the reference; with others, even in float64, it does not.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pam_core.pam.model import PamModel

VECTORS = "ATEN_CPU_CAPABILITY"


def choose_recorded() -> None:
    """Have torch use them: AVX2, two threads. What the user set stays; so does everything once torch is imported."""
    if "torch" in sys.modules:
        return
    if VECTORS not in os.environ:
        os.environ.update({VECTORS: "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"})
    os.environ.setdefault("OMP_NUM_THREADS", "2")


def are_recorded(device: str) -> bool:
    """Whether torch computes with AVX2, on the CPU. How many threads there are matters less."""
    import torch

    return device == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"


def attend_as_recorded(model: PamModel) -> None:
    """Where the reference has no CUDA it switches torch's fused attention off in these parts. In SAM 2's memory
    too, but that is computed in another order here.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    for part in (model.vision.sam.sam_mask_decoder.transformer, model.perceiver):
        part.forward = sdpa_kernel(SDPBackend.MATH)(part.forward)  # type: ignore[method-assign]
