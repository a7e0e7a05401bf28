"""A scene for the exporters to show."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pam_core.types import Perception, Prompt
from tests.pam_plugins.render.made_up import disc, perception, picture, region, ring


@pytest.fixture
def scene() -> Callable[..., tuple[Perception, np.ndarray]]:
    """A picture with a large disc, a small one on top of it, and a ring in a corner."""

    def build(image: str = "cats/one.jpg", width: int = 400, height: int = 300) -> tuple[Perception, np.ndarray]:
        unit = height / 300
        large = disc(width, height, 140 * unit, 150 * unit, 90 * unit)
        small = disc(width, height, 150 * unit, 160 * unit, 25 * unit)
        hole = ring(width, height, 330 * unit, 80 * unit, 50 * unit, 25 * unit)
        clicks = Prompt(points=((100 * unit, 120 * unit), (300 * unit, 250 * unit)), labels=(1, 0))
        box = Prompt(box=(280 * unit, 30 * unit, 380 * unit, 130 * unit))
        nose = {"label": {"en": "nose", "zh": "鼻子"}, "brief": {"en": "A nose."}}
        regions = (
            region(large, prompt=clicks),
            region(small, nose, scores={"label": 0.61}),
            region(hole, {"label": {"en": "ring"}}, prompt=box),
        )
        return perception(image, width, height, *regions), picture(width, height)

    return build
