from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from pam_core.pam.image_model import PamImageModel
from pam_core.pam.model import PamModel
from pam_core.pam.video_model import PamVideoModel
from tests.core.sessions.sessions import caption_threads
from tests.tiny_pam import region_model, video_model


@pytest.fixture(scope="session")
def small(tiny: PamModel) -> PamModel:
    """The same weights on pictures of 256 x 256: sixteen times as fast, and more on videos."""
    config = replace(tiny.config, vision=replace(tiny.config.vision, image_size=256))
    model = PamModel(config).eval()
    model.load_state_dict(tiny.state_dict())
    model.tokenizer, model.generation = tiny.tokenizer, tiny.generation
    return model


@pytest.fixture
def video(small: PamModel) -> PamVideoModel:
    return video_model(small)


@pytest.fixture
def pam(small: PamModel) -> PamImageModel:
    return region_model(small)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """However a session ends, the thread that makes its captions ends with it."""
    yield
    assert caption_threads() == []
