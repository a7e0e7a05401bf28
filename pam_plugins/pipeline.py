"""The way many pictures go through: source -> model -> sinks, resumable.

Pictures are read ahead of the model by a thread; results are written a few at a time. What the first sink has of the
same run is not done again. A picture that fails is a result with an error, and the rest goes on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise

from pam_core.contracts import ModelInfo, RegionModel
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
    resume = Resume(sinks, model.info, options)
    with closing(_read_ahead(jobs_of(source), resume.has)) as decodings, BatchWriter(sinks) as writer:
        for job, decoding in decodings:
            if decoding is None:
                result = resume.result(job)
            else:
                pixels: Picture | None = None
                try:
                    pixels, seconds = decoding.result()
                    found = perceive_picture(pixels, job.prompts, model, options, str(job.path), seconds)
                except (PictureError, PromptError) as error:
                    found = _failed(job, pixels, error, model.info, options)
                result = Result(job, found, pixels)
            writer.add(result)
            yield result


def jobs_of(source: Source | Iterable[Job]) -> Iterator[Job]:
    """The jobs of a source, or of any iterable of them."""
    return source.jobs() if isinstance(source, Source) else iter(source)


class Resume:
    """Which jobs the first of some sinks has already, of the same model and options."""

    def __init__(self, sinks: Sequence[Sink], info: ModelInfo, options: Options) -> None:
        self._sink = sinks[0] if sinks and isinstance(sinks[0], ResumableSink) else None
        self._info, self._options = info, options

    def has(self, job: Job) -> bool:
        return self._sink is not None and self._sink.has(job, self._options.run_id(self._info, job.prompts))

    def result(self, job: Job) -> Result:
        """The result of a job that the sink has."""
        assert self._sink is not None
        run_id = self._options.run_id(self._info, job.prompts)
        return Result(job, self._sink.read(job, run_id), resumed=True)


class BatchWriter:
    """Writes results to sinks, those of about `WRITE_SECONDS` together; the last ones at the end of a `with` block.

    Resumed results are not written to the first sink, which has them. Raises DatasetError.
    """

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks
        self._waiting: list[Result] = []
        self._written = time.monotonic()

    def add(self, result: Result) -> None:
        self._waiting.append(result)
        if time.monotonic() - self._written >= WRITE_SECONDS:
            self.write()

    def write(self) -> None:
        """Write what is waiting. Where that fails, it is not tried a second time."""
        results, self._waiting = self._waiting, []
        for number, sink in enumerate(self._sinks):
            if new := [result for result in results if number or not result.resumed]:
                sink.write(new)
        self._written = time.monotonic()

    def __enter__(self) -> BatchWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.write()


def _read_ahead(jobs: Iterable[Job], finished: Callable[[Job], bool]) -> Generator[tuple[Job, Decoding | None]]:
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


def _failed(job: Job, pixels: Picture | None, error: Exception, info: ModelInfo, options: Options) -> Perception:
    """The perception of a job that cannot be done, announced as any other."""
    name = str(job.path)
    height, width = pixels.shape[:2] if pixels is not None else (0, 0)
    message = str(error) if str(error).startswith(name) else f"{name}: {error}"
    run_id = options.run_id(info, job.prompts)
    failed = Perception(name, width, height, info.ref, run=run_id, error=message)
    plugins.announce("pam_perceived", perception=failed)
    return failed


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
    seconds |= zip(("embed", "segment", "describe"), (end - start for start, end in pairwise(clock)), strict=True)
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
