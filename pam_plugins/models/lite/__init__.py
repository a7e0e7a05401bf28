"""The embedded model `lite`: small networks that ship inside the package and work without a network or a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pam_core.contracts import ModelInfo, RegionModel
from pam_plugins.hookspecs import hookimpl
from pam_plugins.models.lite.info import INFO


@hookimpl
def pam_models() -> Sequence[ModelInfo]:
    return [replace(INFO, load=_load)]


def _load(device: str, compile: bool) -> RegionModel:
    from pam_plugins.models.lite.model import load

    return load(device)
