"""Which device a model runs on. The one place that asks torch about hardware."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pam_core.errors import DeviceError

if TYPE_CHECKING:
    import torch


def resolve_device(name: str = "auto") -> torch.device:
    """The device `name`, CUDA with its index; "auto" takes CUDA, then MPS, then the CPU. Raises DeviceError."""
    import torch  # here, so that a misuse is told before the second that torch takes to import

    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    kind, _, index = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if not available.get(kind, False) or (":" in name and not (index.isdecimal() and int(index) < count)):
        there = ", ".join(kind for kind, is_there in available.items() if is_there)
        raise DeviceError(f"Got the device {name!r}; this machine has {there}. Leave --device out to take the best.")
    return torch.device(kind, int(index or 0)) if kind == "cuda" else torch.device(name)


def default_dtype(device: torch.device) -> torch.dtype:
    """What large models compute in: bfloat16 on CUDA, float32 elsewhere.

    Not half precision on CPUs: most have no units for it and would be slower. Not on MPS, where nothing was measured.
    """
    import torch

    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
