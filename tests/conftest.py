"""Property tests without a time limit each, and torch on one thread: a busy machine is no reason to fail.

Where other programs take turns on the same cores, torch's threads wait for each other, and everything takes ten times
as long.
"""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, so before that
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
