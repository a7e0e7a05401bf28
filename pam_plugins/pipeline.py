"""The way many pictures go through: source -> model -> sinks, resumable.

Pictures are read ahead of the model by a thread; results are written a few at a time. What the first sink has of the
same run is not done again. A picture that fails is a result with an error, and the rest goes on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from pam_core.contracts import RegionModel
from pam_core.engine.cache import shared_cache
from pam_core.errors import PictureError, PromptError
from pam_core.media.images import read_picture
from pam_core.questions import ImageEmbedding, ask, with_answers
from pam_core.types import Perception, Picture, Prompt, Region
from pam_plugins import plugins
from pam_plugins.datasets.contracts import Job, Result, ResumableSink, Sink, Source
from pam_plugins.options import Options, check_prompt

READ_AHEAD = 2
"""Decoded pictures that may wait for the model."""

WRITE_SECONDS = 0.25
"""Results wait about this long to be written together: what a crash can cost, beside the picture under way."""

Decoding = Future[tuple[Picture, float]]
"""A picture being read, and the seconds that took."""


def run(
    source: Source | Iterable[Job], sinks: Sequence[Sink], model: RegionModel, options: Options
) -> Generator[Result]:
    """Perceive every job that the first sink does not have, in order, and write the results to all sinks.

    Results are yielded as they are made. Nothing that was perceived is lost when the caller stops early, or when
    something raises. Raises DatasetError.
    """
    jobs = source.jobs() if isinstance(source, Source) else source
    first = sinks[0] if sinks and isinstance(sinks[0], ResumableSink) else None

    def finished(job: Job) -> bool:
        return first is not None and first.has(job, options.run_id(model.info, job.prompts))

    waiting: list[Result] = []
    written = time.monotonic()
    decodings = _read_ahead(jobs, finished)
    try:
        for job, decoding in decodings:
            if decoding is None:
                assert first is not None
                perception = first.read(job, options.run_id(model.info, job.prompts))
                result = Result(job, perception, resumed=True)
            else:
                result = perceive_job(job, model, options, decoding)
            waiting.append(result)
            if time.monotonic() - written >= WRITE_SECONDS:
                write(sinks, waiting)
                waiting, written = [], time.monotonic()
            yield result
    finally:
        decodings.close()
        write(sinks, waiting)


def write(sinks: Sequence[Sink], results: Sequence[Result]) -> None:
    """Write results to every sink; resumed ones not to the first, which has them. Raises DatasetError."""
    for number, sink in enumerate(sinks):
        new = [result for result in results if number or not result.resumed]
        if new:
            sink.write(new)


def _read_ahead(
    jobs: Iterable[Job], finished: Callable[[Job], bool] = lambda job: False
) -> Generator[tuple[Job, Decoding | None]]:
    """The jobs in order, each with its picture being read; None in its place where the job is finished."""
    waiting: deque[tuple[Job, Decoding | None]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
        for job in jobs:
            waiting.append((job, None if finished(job) else reader.submit(_decode, job)))
            if len(waiting) > READ_AHEAD:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()


def _decode(job: Job) -> tuple[Picture, float]:
    if job.error is not None:
        raise PromptError(job.error)
    started = time.perf_counter()
    return read_picture(job.path), time.perf_counter() - started


def perceive_job(job: Job, model: RegionModel, options: Options, decoding: Decoding | None = None) -> Result:
    """The result of one job; what is wrong with its picture or its prompts is in the perception."""
    pixels: Picture | None = None
    name = str(job.path)
    try:
        pixels, seconds = decoding.result() if decoding is not None else _decode(job)
        return Result(job, perceive_picture(pixels, job.prompts, model, options, name, seconds), pixels)
    except (PictureError, PromptError) as error:
        height, width = pixels.shape[:2] if pixels is not None else (0, 0)
        message = str(error) if str(error).startswith(name) else f"{name}: {error}"
        run_id = options.run_id(model.info, job.prompts)
        failed = Perception(name, width, height, model.info.ref, run=run_id, error=message)
        plugins.announce("pam_perceived", perception=failed)
        return Result(job, failed, pixels)


def perceive_picture(
    pixels: Picture,
    prompts: Sequence[Prompt],
    model: RegionModel,
    options: Options,
    name: str,
    read_seconds: float | None = None,
) -> Perception:
    """Segment and describe one picture, RGB uint8 (H, W, 3); without prompts, everything in it.

    Raises PromptError and UnsupportedError before the model begins.
    """
    height, width = pixels.shape[:2]
    tasks = options.tasks_for(model.info)
    proposer = None if prompts else plugins.proposer(options.proposer)
    steps = [plugins.postprocessor(step) for step in options.postprocess]
    for prompt in prompts:
        check_prompt(model.info, prompt)
        prompt.check(width, height)
    clock = [time.perf_counter()]
    (embedding,) = shared_cache.embed(model, [pixels])
    clock.append(time.perf_counter())
    if proposer is not None:
        regions = proposer.propose(model, embedding)
    elif options.keep_masks:
        regions = _segment_unmasked(model, embedding, prompts)
    else:
        regions = [of_one[0] for of_one in model.segment([(embedding, prompt) for prompt in prompts])]
    clock.append(time.perf_counter())
    questions = ask(embedding, regions, tasks, options.languages, options.generation)
    regions = with_answers(regions, model.describe(questions))
    clock.append(time.perf_counter())
    seconds = {} if read_seconds is None else {"read": read_seconds}
    seconds |= zip(
        ("embed", "segment", "describe"), (b - a for a, b in zip(clock, clock[1:], strict=False)), strict=True
    )
    perception = Perception(
        image=name,
        width=width,
        height=height,
        model=model.info.ref,
        regions=tuple(regions),
        run=options.run_id(model.info, prompts),
        seconds={phase: round(value, 4) for phase, value in seconds.items()},
    )
    for step in steps:
        perception = step.process(perception)
    plugins.announce("pam_perceived", perception=perception)
    return perception


def _segment_unmasked(model: RegionModel, embedding: ImageEmbedding, prompts: Sequence[Prompt]) -> list[Region]:
    """A region per prompt, in order; prompts that have a mask keep it, the others are segmented."""
    unmasked = iter(model.segment([(embedding, prompt) for prompt in prompts if prompt.mask is None]))
    return [
        Region(prompt.mask, model.info.ref, prompt) if prompt.mask is not None else next(unmasked)[0]
        for prompt in prompts
    ]
