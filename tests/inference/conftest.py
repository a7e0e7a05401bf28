from __future__ import annotations

from collections.abc import Iterator

import pytest

from pam_core.inference.image import PamImageModel
from pam_core.model.pam import PamModel
from tests.inference.sessions import caption_threads
from tests.tiny_pam import FOLDER, region_model


@pytest.fixture(scope="session")
def tiny() -> PamModel:
    return PamModel.from_pretrained(FOLDER)


@pytest.fixture
def pam(tiny: PamModel) -> PamImageModel:
    return region_model(tiny)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """However a session ends, the thread that makes its captions ends with it."""
    yield
    assert caption_threads() == []
