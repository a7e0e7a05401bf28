"""Enrichment in this process: pictures are decoded ahead of the model, rows are written in batches."""

from __future__ import annotations

from collections.abc import Generator

from pam_core.contracts import RegionModel
from pam_plugins.datasets.batches import Step, write_in_batches
from pam_plugins.datasets.contracts import Sink, Source
from pam_plugins.options import Options
from pam_plugins.pipeline import perceive_job, read_ahead


def enrich(source: Source, sink: Sink, model: RegionModel, options: Options) -> Generator[Step]:
    """Perceive what the sink does not have yet, in the source's order. Steps are yielded as they are dealt with.

    Nothing that was perceived is lost when the caller stops early, or when something raises.
    """
    return write_in_batches(_steps(source, sink, model, options), sink)


def _steps(source: Source, sink: Sink, model: RegionModel, options: Options) -> Generator[Step]:
    finished = sink.finished()
    readings = read_ahead(
        source.jobs(), done=lambda job: finished.get(job.id) == options.run_id(model.info, job.prompts)
    )
    try:
        for job, reading in readings:
            if reading is None:
                yield Step(None)
            else:
                perception, _ = perceive_job(job, reading, model, options)
                yield Step((job, perception))
    finally:
        readings.close()
