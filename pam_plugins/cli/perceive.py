"""`pam perceive`: pictures and prompts from the command line, results to a file, a folder and the terminal."""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from pam_plugins.cli.arguments import choose, languages, load, numbers, read_mask
from pam_plugins.cli.console import FAILED, INTERRUPTED, err, fail, note, out, plain, progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pam_core.contracts import ExportWriter, ModelInfo
    from pam_core.questions import Generation
    from pam_core.types import Perception, Prompt
    from pam_plugins.datasets.contracts import Job
    from pam_plugins.options import Options

MAX_ROWS = 60
DEFAULT_EXPORTS = ("overlay", "html")


def command(
    images: list[Path] = typer.Argument(
        None, help="Pictures; folders are searched for pictures.", show_default=False
    ),
    point: list[str] = typer.Option([], metavar="X,Y[,0]", help="A click; with ,0 a click on the background."),
    box: list[str] = typer.Option([], metavar="X1,Y1,X2,Y2", help="A box; repeat it for several regions."),
    mask: list[Path] = typer.Option([], help="A mask picture of the same size; repeat it for several regions."),
    prompts: Path = typer.Option(None, help="A JSON Lines file of prompts, with the pictures they are for."),
    everything: bool = typer.Option(False, "--everything", help="All regions, without a prompt (the default)."),
    task: list[str] = typer.Option([], help="label, explanation, brief, detailed, text; all but text if left out."),
    lang: str = typer.Option("en", help="Languages of the answers, e.g. en,zh."),
    model: str = typer.Option("auto", help="A name from `pam models`; auto takes the best that is ready."),
    device: str = typer.Option("auto", help="cpu, cuda, mps or auto."),
    compile: bool = typer.Option(False, "--compile", help="Compile the model: slow to start, then faster."),
    max_tokens: list[str] = typer.Option(
        [], metavar="[TASK=]N", help="The longest answer in tokens, of all tasks or of one, e.g. 128 or label=16."
    ),
    temperature: float = typer.Option(0.0, help="0 takes the likeliest word, always; more, by chance."),
    top_p: float = typer.Option(1.0, help="With a temperature: only the likeliest words that make up this share."),
    repetition_penalty: float = typer.Option(None, help="1 is none; the model's own if left out."),
    seed: int = typer.Option(0, help="With a temperature: which chance."),
    proposer: str = typer.Option("grid", help="How to find everything (`pam plugins`)."),
    postprocess: list[str] = typer.Option([], help="A post-processor to run on the results (`pam plugins`)."),
    out_file: Path = typer.Option(
        None, "--out", help="Append results to this JSON Lines file; what is in it already is not done again."
    ),
    save: Path = typer.Option(None, help="Save overlays and a page to look at into this folder."),
    export: list[str] = typer.Option(
        [], help="What to --save: names from `pam plugins`; overlay and html if left out."
    ),
) -> None:
    """Mask, label, explain and caption regions of pictures."""
    from pam_core.errors import (
        DatasetError,
        DeviceError,
        GenerationError,
        NotFoundError,
        NotReadyError,
        PromptError,
        UnsupportedError,
    )
    from pam_plugins.options import Options

    options = Options(
        tasks=tuple(task) or None,
        languages=languages(lang),
        proposer=proposer,
        postprocess=tuple(postprocess),
    )
    try:
        options = replace(options, generation=_generation(max_tokens, temperature, top_p, repetition_penalty, seed))
        jobs = _jobs(images or [], prompts, _prompts(point, box, mask), everything)
        info = choose(model)
        options.tasks_for(info)
        if export and save is None:
            raise PromptError(f"Got --export {export[0]} and no folder; wanted --save DIR too.")
        _run(jobs, info, device, compile, options, out_file, save, tuple(dict.fromkeys(export)) or DEFAULT_EXPORTS)
    except NotReadyError as error:
        fail(error, FAILED)
    except (PromptError, UnsupportedError, GenerationError, NotFoundError, DeviceError) as error:
        fail(error)
    except DatasetError as error:
        fail(error, FAILED)


def _generation(
    limits: list[str], temperature: float, top_p: float, repetition_penalty: float | None, seed: int
) -> Generation:
    from pam_core.errors import GenerationError
    from pam_core.questions import Generation

    general, by_task = Generation.max_tokens, {}
    for limit in limits:
        task, _, number = limit.rpartition("=")
        if not number.isdecimal():
            raise GenerationError(f"Got --max-tokens {limit!r}; wanted a number, or a task and a number: label=16.")
        if task:
            by_task[task] = int(number)
        else:
            general = int(number)
    return Generation(general, temperature, top_p, repetition_penalty, seed, by_task)


def _prompts(points: list[str], boxes: list[str], masks: list[Path]) -> tuple[Prompt, ...]:
    """All points are one prompt; with one box or mask they refine it. Several boxes or masks are a region each."""
    from pam_core.errors import PromptError
    from pam_core.types import Prompt

    clicks = [numbers(point, (2, 3), "--point", "X,Y or X,Y,0") for point in points]
    clicked = tuple((click[0], click[1]) for click in clicks)
    labels = tuple(click[2] if len(click) == 3 else 1 for click in clicks)  # the prompt refuses all but 0 and 1
    corners = [numbers(box, (4,), "--box", "X1,Y1,X2,Y2") for box in boxes]
    drawn = [read_mask(path) for path in masks]
    if clicked and len(corners) + len(drawn) > 1:
        raise PromptError(
            f"Got points with {len(corners)} boxes and {len(drawn)} masks; wanted points with at most one of them. "
            "Put several prompts into a file (--prompts)."
        )
    if clicked:
        x1y1x2y2 = tuple(corners[0]) if corners else None
        return (Prompt(clicked, labels, x1y1x2y2, drawn[0] if drawn else None),)  # type: ignore[arg-type]
    return (*(Prompt(box=tuple(c)) for c in corners), *(Prompt(mask=m) for m in drawn))  # type: ignore[arg-type]


def _jobs(
    images: Sequence[Path], prompt_file: Path | None, prompts: tuple[Prompt, ...], everything: bool
) -> list[Job]:
    from pam_core.errors import PromptError
    from pam_plugins.datasets.contracts import Job
    from pam_plugins.pipeline import read_jobs

    pictures = _pictures(images)
    if prompt_file is not None:
        if prompts or everything:
            raise PromptError("Got --prompts together with other prompts; wanted one or the other.")
        jobs = read_jobs(prompt_file, pictures)
        if not jobs:
            raise PromptError(
                f"{prompt_file} holds no prompt; wanted at least one line with points, a box or a mask."
            )
        return jobs
    if not pictures:
        raise PromptError("Got no picture; wanted at least one, or a file of prompts that names them (--prompts).")
    if everything and prompts:
        raise PromptError("Got --everything together with prompts; wanted one or the other.")
    return [Job(picture, prompts) for picture in pictures]


def _pictures(paths: Sequence[Path]) -> list[Path]:
    """The paths with folders replaced by the pictures in them, in order of name."""
    from pam_core.media.images import pictures_in

    found: list[Path] = []
    for path in paths:
        found += pictures_in(path) if path.is_dir() else [path]
    return list(dict.fromkeys(found))


def _run(
    jobs: list[Job],
    info: ModelInfo,
    device: str,
    compile: bool,
    options: Options,
    out_file: Path | None,
    save: Path | None,
    exports: tuple[str, ...],
) -> None:
    from pam_plugins.datasets.jsonl import ResultsFile
    from pam_plugins.pipeline import run

    table = Table("picture", "label", "score", "caption", title=None, box=None, pad_edge=False, header_style="bold")
    finished = failed = resumed = regions = 0
    with ExitStack() as stack:
        results = stack.enter_context(ResultsFile(out_file)) if out_file is not None else None
        stack.enter_context(_sentence_for(save))  # closing a writer may write too
        writers: list[ExportWriter] = [stack.enter_context(closing(w)) for w in _writers(save, exports)]
        shown = stack.enter_context(progress())
        bar = shown.add_task("loading the model", total=len(jobs))
        try:
            model = load(info, device, compile)
            shown.update(bar, description="perceiving")
            for outcome in run(jobs, model, options, results, writers):
                perception = outcome.perception
                finished += perception.error is None
                failed += perception.error is not None
                resumed += outcome.resumed
                regions += len(perception.regions)
                if perception.error is not None:
                    err.print(f"[red]failed[/] {plain(perception.error)}", soft_wrap=True, highlight=False)
                _add_rows(table, perception)
                shown.advance(bar)
        except KeyboardInterrupt:
            kept = f"; they are in {out_file}, and the same command goes on from there" if out_file else ""
            fail(f"stopped: {finished} of {len(jobs)} pictures are finished{kept}.", INTERRUPTED)
        except OSError as error:
            fail(
                f"cannot write: {error.strerror or error} ({error.filename or save}). "
                f"{finished} of {len(jobs)} pictures are finished; make room and run the same command again.",
                FAILED,
            )
    out.print(table)
    if regions > MAX_ROWS:
        note(f"... and {regions - MAX_ROWS} more regions.")
    parts = [f"{finished} pictures, {regions} regions"]
    parts += [f"{resumed} taken over from an earlier run"] if resumed else []
    parts += [f"{failed} failed"] if failed else []
    parts += [f"results in {out_file}"] if out_file else []
    parts += [f"look at {save / 'index.html'}"] if save and "html" in exports else []
    note("; ".join(parts) + ".")
    if failed:
        raise typer.Exit(FAILED)


@contextmanager
def _sentence_for(save: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fail(
            f"cannot write: {error.strerror or error} ({error.filename or save}); make room and run it again.", FAILED
        )


def _writers(save: Path | None, exports: tuple[str, ...]) -> list[ExportWriter]:
    from pam_plugins.plugins import exporter

    if save is None:
        return []
    chosen = [exporter(name) for name in exports]
    try:
        save.mkdir(parents=True, exist_ok=True)
        return [each.open(save) for each in chosen]
    except OSError as error:
        fail(f"{save} cannot be written ({error.strerror}); choose another --save folder.", FAILED)


def _add_rows(table: Table, perception: Perception) -> None:
    name = Path(perception.image).name
    for region in perception.regions[: max(0, MAX_ROWS - table.row_count)]:
        score = region.scores.get("label")
        texts = next(
            (t for task in ("brief", "detailed", "explanation", "text") if (t := region.texts.get(task))), {}
        )
        words = " / ".join(texts.values()) or "; ".join(
            f"{task}: {' / '.join(answers.values())}" for task, answers in region.texts.items() if task != "label"
        )
        label = " / ".join(region.texts.get("label", {}).values())
        table.add_row(*map(Text, (name, label, "" if score is None else f"{score:.2f}", words)))
