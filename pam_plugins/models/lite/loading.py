"""Loads the weights that ship inside the package: safetensors in half precision, run in single precision."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TypeVar

import torch
from safetensors.torch import load_file

Network = TypeVar("Network", bound=torch.nn.Module)


class WeightsError(RuntimeError):
    """Weights that are missing or damaged."""


def load_weights(network: Network, name: str, device: torch.device) -> Network:
    """Fill a network with `weights/<name>.safetensors` and make it ready to infer. Raises WeightsError."""
    try:
        with as_file(files(__package__) / "weights" / f"{name}.safetensors") as path:
            network.load_state_dict({key: value.float() for key, value in load_file(path).items()})
    except Exception as error:  # safetensors and torch raise several kinds
        raise WeightsError(
            f"The weights {name!r} of lite cannot be loaded ({error}); install pam-plugins again."
        ) from error
    return network.to(device).eval().requires_grad_(False)
