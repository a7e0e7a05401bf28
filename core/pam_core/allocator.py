"""What the C library does with freed memory. For programs of our own only: a host's memory is the host's business."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
"""Numbers of `mallopt`'s settings, in glibc's malloc.h."""

KEPT = 1 << 30
"""Bytes: blocks up to this size come from memory that is kept, and this much of it may lie free."""


def keep_freed_memory() -> bool:
    """Have freed blocks wait in this process for their next use; False where the C library is not glibc.

    By default glibc gives large blocks back to the system at once. Networks on a CPU free and take the same hundreds
    of megabytes from layer to layer, and the system clears every page of them each time.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(setting, KEPT) == 1 for setting in (_TRIM_THRESHOLD, _MMAP_THRESHOLD))
