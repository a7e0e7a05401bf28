"""Rows on their way into a sink: written a few at a time, and none of them lost."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass

from pam_plugins.datasets.contracts import Row, Sink

WRITE_SECONDS = 0.25
"""Rows wait at most about this long to be written together: what a crash can cost, beside the row in the making."""


@dataclass(frozen=True)
class Step:
    """One job dealt with: its row, or None where an earlier run had finished it."""

    row: Row | None


def write_in_batches(steps: Generator[Step], sink: Sink) -> Generator[Step]:
    """The same steps, their rows written as time goes by.

    Rows not yet written when the caller stops early, or when something raises, are written first.
    """
    waiting: list[Row] = []
    written = time.monotonic()
    try:
        for step in steps:
            if step.row is not None:
                waiting.append(step.row)
            if waiting and time.monotonic() - written >= WRITE_SECONDS:
                rows, waiting = waiting, []
                sink.write(rows)
                written = time.monotonic()
            yield step
    finally:
        steps.close()
        if waiting:
            sink.write(waiting)
