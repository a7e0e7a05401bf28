"""Loads a checkpoint of PAM as a `RegionModel`."""

from __future__ import annotations

from pam_core.devices import default_dtype, resolve_device
from pam_core.pam.model import PamModel
from pam_core.pam.video_model import PamVideoModel
from pam_plugins import registry
from pam_plugins.models.pam.info import infos, known


def load(name: str, device: str, compile: bool) -> PamVideoModel:
    """The model called `name`. Raises DeviceError and CheckpointError."""
    place = resolve_device(device)
    info = next(info for info in infos() if info.name == name)
    model = PamModel.from_pretrained(known()[name].source, device=place, dtype=default_dtype(place))
    if compile:
        model.compile_parts()
    return PamVideoModel(model, info, {task.name: task.questions for task in registry.tasks().values()})
