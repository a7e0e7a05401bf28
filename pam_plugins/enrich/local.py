"""Enrichment in this process: pictures are decoded ahead of the model, rows are written in batches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from pam_core.contracts import RegionModel
from pam_plugins.enrich.stores import Row, Sink, Source
from pam_plugins.perceive import Options
from pam_plugins.run import perceive_job, read_ahead

WRITE_SECONDS = 0.25
"""Rows wait at most about this long to be written together: what a crash can cost, beside the row in the making."""


@dataclass(frozen=True)
class Step:
    """One job dealt with: its row, or None where an earlier run had finished it."""

    row: Row | None


def enrich(source: Source, sink: Sink, model: RegionModel, options: Options) -> Iterator[Step]:
    """Perceive what the sink does not have yet, in the source's order. Steps are yielded as they are dealt with.

    Rows not yet written when the caller stops early, or when something raises, are written first; nothing that was
    perceived is lost.
    """
    finished = sink.finished()
    waiting: list[Row] = []
    written = time.monotonic()
    readings = read_ahead(
        source.jobs(), done=lambda job: finished.get(job.id) == options.run_id(model.info, job.prompts)
    )
    try:
        for job, reading in readings:
            if reading is None:
                yield Step(None)
                continue
            perception, _ = perceive_job(job, reading, model, options)
            waiting.append((job, perception))
            if time.monotonic() - written >= WRITE_SECONDS:
                rows, waiting = waiting, []
                sink.write(rows)
                written = time.monotonic()
            yield Step((job, perception))
    finally:
        readings.close()
        if waiting:
            sink.write(waiting)
