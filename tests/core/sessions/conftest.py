from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.core.sessions.sessions import caption_threads


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """However a session ends, the thread that makes its captions ends with it."""
    yield
    assert caption_threads() == []
