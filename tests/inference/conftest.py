from __future__ import annotations

import pytest

from pam_core.inference.image import PamImageModel
from pam_core.inference.video import PamVideoModel
from pam_core.model.pam import PamModel
from tests.tiny_pam import FOLDER, region_model, video_model


@pytest.fixture(scope="session")
def tiny() -> PamModel:
    return PamModel.from_pretrained(FOLDER)


@pytest.fixture
def pam(tiny: PamModel) -> PamImageModel:
    return region_model(tiny)


@pytest.fixture
def video(tiny: PamModel) -> PamVideoModel:
    return video_model(tiny)
