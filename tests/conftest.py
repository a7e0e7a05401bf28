"""Property tests without a time limit each, and torch on one thread: a busy machine is no reason to fail.

Where other programs take turns on the same cores, torch's threads wait for each other, and everything takes ten times
as long.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.paths import ROOT

if TYPE_CHECKING:
    from pam_core.pam.model import PamModel

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, so before that
RAY = ("datasets/test_on_ray.py", "datasets/test_processes.py")
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes share the tests: one file, one process, and no two with a Ray of their own at once."""
    for item in items:
        file = item.path.relative_to(ROOT / "tests").as_posix()
        item.add_marker(pytest.mark.xdist_group("ray" if file.endswith(RAY) else file))


@pytest.fixture(scope="session")
def tiny() -> PamModel:
    """The tiny PAM of tests/parity, loaded once; not to be changed."""
    from pam_core.pam.checkpoint import load_pretrained
    from tests.tiny_pam import FOLDER

    return load_pretrained(FOLDER)
