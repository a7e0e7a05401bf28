from __future__ import annotations

import pytest

from pam_core.model.pam import PamModel
from tests.tiny_pam import FOLDER


@pytest.fixture(scope="session")
def tiny() -> PamModel:
    return PamModel.from_pretrained(FOLDER)
