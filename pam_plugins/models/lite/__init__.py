"""The embedded model `lite`: small networks that ship inside the package and work without a network or a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pam_plugins.hookspecs import hookimpl
from pam_plugins.models.lite.info import INFO

if TYPE_CHECKING:
    from pam_core.contracts import ModelInfo, RegionModel


@hookimpl
def pam_models() -> Sequence[ModelInfo]:
    return [INFO]


@hookimpl
def pam_load_model(name: str, device: str) -> RegionModel | None:
    if name != INFO.name:
        return None
    from pam_core.devices import resolve_device
    from pam_plugins.models.lite.model import load

    return load(resolve_device(device))
