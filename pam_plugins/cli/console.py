"""Where the commands print: results to stdout, progress and errors to stderr."""

from __future__ import annotations

from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

out = Console(emoji=False)
err = Console(stderr=True, emoji=False)

FAILED, MISUSED, INTERRUPTED = 1, 2, 130


def fail(message: object, code: int = MISUSED) -> NoReturn:
    """End the command with one sentence on stderr."""
    say(message)
    raise typer.Exit(code)


def say(message: object) -> None:
    """One sentence on stderr, after the name of the program."""
    err.print(f"[bold red]pam:[/] {plain(message)}", soft_wrap=True, highlight=False)


def note(message: object) -> None:
    """One line of information on stderr."""
    err.print(f"[dim]{plain(message)}[/]", soft_wrap=True, highlight=False)


def progress() -> Progress:
    """A bar on stderr that counts what is done, gone when it is; nothing where stderr is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )


def plain(message: object) -> str:
    """Text that rich prints as it is: no markup."""
    return escape(str(message))
