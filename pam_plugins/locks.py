"""A lock on an open file, so that two processes do not write to one place."""

from __future__ import annotations

from typing import IO


def lock(file: IO[bytes]) -> bool:
    """Take the lock that goes with this file, for as long as it is open; False where another process has it.

    The system gives it back when a process ends, however it ends. On Windows there is none, and everyone gets it.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
