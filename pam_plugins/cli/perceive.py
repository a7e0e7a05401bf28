"""`pam perceive`: pictures and prompts from the command line, results to a file, a folder and the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text

from pam_core.errors import GenerationError, PromptError
from pam_core.questions import Generation
from pam_core.types import Perception, Prompt
from pam_plugins import plugins
from pam_plugins.cli import run_loop
from pam_plugins.cli.arguments import choose, languages, numbers, read_mask
from pam_plugins.cli.console import note, out
from pam_plugins.datasets.contracts import Job, Sink, Source
from pam_plugins.datasets.folder import pictures_of
from pam_plugins.datasets.jsonl import JsonLinesSink
from pam_plugins.datasets.prompts import PromptsSource
from pam_plugins.files import make_folder
from pam_plugins.options import DEFAULT_PROPOSER, Options

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
    proposer: str = typer.Option(DEFAULT_PROPOSER, help="How to find everything (`pam plugins`)."),
    postprocess: list[str] = typer.Option([], help="A post-processor to run on the results (`pam plugins`)."),
    out_file: Path = typer.Option(
        None, "--out", help="Append results to this JSON Lines file; what is in it already is not done again."
    ),
    save: Path = typer.Option(None, help="Save overlays and a page for the browser into this folder."),
    export: list[str] = typer.Option([], help="Sinks (`pam plugins`) to --save into; overlay and html if left out."),
) -> None:
    """Mask, label, explain and caption regions of pictures."""
    generation = _generation(max_tokens, temperature, top_p, repetition_penalty, seed)
    options = Options(tuple(task) or None, languages(lang), proposer, tuple(postprocess), generation)
    source = _source(images or [], prompts, _prompts(point, box, mask), everything)
    info = choose(model)
    if export and save is None:
        raise PromptError(f"Got --export {export[0]} and no folder; wanted --save DIR too.")
    exports = tuple(dict.fromkeys(export)) or DEFAULT_EXPORTS
    sinks: list[Callable[[], Sink]] = [] if out_file is None else [partial(JsonLinesSink, out_file)]
    if save is not None:
        formats = [plugins.sink(name) for name in exports]
        make_folder(save)
        sinks += [partial(each.open, str(save)) for each in formats]
    table = Table("picture", "label", "score", "caption", title=None, box=None, pad_edge=False, header_style="bold")
    show = partial(_add_rows, table)
    counts = run_loop.run(source, sinks, out_file or save, info, options, device=device, compile=compile, show=show)
    out.print(table)
    if counts.regions > MAX_ROWS:
        note(f"... and {counts.regions - MAX_ROWS} more regions.")
    results = [f"results in {out_file}"] if out_file else []
    page = [f"open {save / 'index.html'}"] if save and "html" in exports else []
    counts.report(*results, *page)


def _generation(
    limits: list[str], temperature: float, top_p: float, repetition_penalty: float | None, seed: int
) -> Generation:
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


def _source(
    images: Sequence[Path], prompt_file: Path | None, prompts: tuple[Prompt, ...], everything: bool
) -> Source | list[Job]:
    """The jobs that the arguments describe; folders stand for the pictures in them, in order of name."""
    pictures: dict[Path, None] = {}
    for path in images:
        pictures.update(dict.fromkeys(pictures_of(path) if path.is_dir() else [path]))
    if prompt_file is not None:
        if prompts or everything:
            raise PromptError("Got --prompts together with other prompts; wanted one or the other.")
        return PromptsSource(prompt_file, list(pictures))
    if not pictures:
        raise PromptError("Got no picture; wanted at least one, or a file of prompts that names them (--prompts).")
    if everything and prompts:
        raise PromptError("Got --everything together with prompts; wanted one or the other.")
    return [Job(picture, prompts) for picture in pictures]


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
