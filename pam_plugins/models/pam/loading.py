"""Loads a checkpoint of PAM as a `RegionModel`."""

from __future__ import annotations

import torch

from pam_core.devices import default_dtype
from pam_core.pam.checkpoint import load_pretrained
from pam_core.pam.region_model import PamRegionModel
from pam_plugins import plugins


def load(name: str, source: str, device: str, compile: bool) -> PamRegionModel:
    """The model called `name` from a folder or a downloaded repository. Raises CheckpointError."""
    place = torch.device(device)
    model = load_pretrained(source, device=place, dtype=default_dtype(place))
    if compile:
        model.compile_parts()
    questions = {task.name: task.questions for task in plugins.tasks().values()}
    return PamRegionModel(model, plugins.model_infos()[name], questions)
