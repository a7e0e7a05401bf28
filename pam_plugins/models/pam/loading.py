"""Loads a checkpoint of PAM as a `RegionModel`."""

from __future__ import annotations

import torch

from pam_core.devices import default_dtype
from pam_core.pam.model import PamModel
from pam_core.pam.video_model import PamVideoModel
from pam_plugins import plugins


def load(name: str, source: str, device: str, compile: bool) -> PamVideoModel:
    """The model called `name` from a folder or a downloaded repository. Raises CheckpointError."""
    place = torch.device(device)
    model = PamModel.from_pretrained(source, device=place, dtype=default_dtype(place))
    if compile:
        model.compile_parts()
    questions = {task.name: task.questions for task in plugins.tasks().values()}
    return PamVideoModel(model, plugins.model_infos()[name], questions)
