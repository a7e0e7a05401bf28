"""The tiny model of tests/parity as a region model, and what its pictures and prompts are."""

from __future__ import annotations

import numpy as np
from PIL import Image

from pam_core.contracts import ModelInfo
from pam_core.pam.description import DEFAULT_BUDGET
from pam_core.pam.model import PamModel
from pam_core.pam.region_model import PamRegionModel
from pam_core.tasks import BUILTIN_TASKS
from pam_core.types import Picture, Prompt
from pam_core.video import Frame
from tests.paths import PARITY

FOLDER = PARITY
BOTH = frozenset({"en", "zh"})
QUESTIONS = {task.name: task.questions for task in BUILTIN_TASKS}
INFO = ModelInfo("tiny", "1", "a tiny PAM with random weights", "none", dict.fromkeys(QUESTIONS, BOTH), video=True)

EIGHT = (
    Prompt.at(20, 20),
    Prompt.at(100, 90),
    Prompt(box=(40, 34, 100, 82)),
    Prompt(points=((70, 58), (90, 60), (125, 85)), labels=(1, 1, 0)),
    Prompt.at(140, 30),
    Prompt(box=(111, 67, 139, 103)),
    Prompt(points=((70, 58),), box=(40, 34, 100, 82)),
    Prompt.from_mask(np.pad(np.ones((40, 60), bool), ((30, 50), (40, 60)))),
)
"""Prompts of every kind on a picture of 160x120."""


def picture(name: str = "image.png") -> Picture:
    return np.array(Image.open(FOLDER / "inputs" / name).convert("RGB"))


def region_model(model: PamModel, budget: int = DEFAULT_BUDGET) -> PamRegionModel:
    return PamRegionModel(model, INFO, QUESTIONS, budget)


def frame(index: int) -> Frame:
    """One of the 32 frames, at 10 frames a second."""
    return Frame(index, index / 10, picture(f"{index:05}.jpg"))
