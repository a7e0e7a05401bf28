"""`pam models`, `pam plugins` and `pam doctor`: what is there, what is missing, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from pam_core.devices import resolve_device
from pam_core.types import Prompt
from pam_plugins import plugins as registry
from pam_plugins.api import perceive, release_model
from pam_plugins.cli.console import FAILED, out


def models() -> None:
    """List the models, what each can do, and what the missing ones need."""
    table = Table("model", "prompts", "tasks", "what it is", box=None, pad_edge=False, header_style="bold")
    for info in registry.model_infos().values():
        tasks = ", ".join(f"{task} ({'/'.join(sorted(known))})" for task, known in info.tasks.items())
        about = f"{info.description}. Revision {info.revision}; licence {info.licence}."
        if info.missing:
            about += f" NOT READY: {info.missing}"
        table.add_row(info.name, ", ".join(sorted(info.prompts)), tasks, escape(about))
    out.print(table)


def plugins() -> None:
    """List the plugins with the hooks they use and the things they bring."""
    brought: dict[str, Mapping[str, Any]] = {
        "tasks": registry.tasks(),
        "proposers": registry.proposers(),
        "post-processors": registry.postprocessors(),
        "sources": registry.sources(),
        "sinks": registry.sinks(),
    }
    registry.model_infos()  # so that a plugin whose hook fails is listed as failed
    table = Table("plugin", "from", "state", "hooks", box=None, pad_edge=False, header_style="bold")
    for status in registry.get_plugins().statuses:
        state = (
            f"failed: {status.error}" if status.error else "loaded" if status.loaded else "left out by PAM_PLUGINS"
        )
        table.add_row(status.name, status.source, escape(state), ", ".join(status.hooks))
    out.print(table)
    for kind, things in brought.items():
        names = "; ".join(f"[bold]{thing.name}[/] {escape(thing.description)}" for thing in things.values())
        out.print(f"{kind}: {names or 'none'}", highlight=False)


def doctor() -> None:
    """Check this installation and say what to do about what is wrong."""
    checks = [_python(), _torch(), *_packages(), _disk(), *_plugin_health(), *_models_health()]
    for good, what in checks:
        out.print(f"[green]ok[/]    {escape(what)}" if good else f"[red]wrong[/] {escape(what)}", highlight=False)
    if not all(good for good, _ in checks):
        raise typer.Exit(FAILED)


def _python() -> tuple[bool, str]:
    good = (3, 10) <= sys.version_info[:2] < (3, 14)
    wanted = "" if good else "; wanted 3.10 to 3.13"
    return good, f"Python {platform.python_version()} on {platform.system()} {platform.machine()}{wanted}"


def _torch() -> tuple[bool, str]:
    try:
        import torch
    except ImportError as error:
        return False, f"torch does not import ({error}); pip install torch"

    return True, f"torch {torch.__version__} on {resolve_device()} with {torch.get_num_threads()} threads"


def _packages() -> list[tuple[bool, str]]:
    checks = []
    for name in ("supervision", "pycocotools", "opencv-python-headless", "rapidocr"):
        try:
            checks.append((True, f"{name} {importlib.metadata.version(name)}"))
        except importlib.metadata.PackageNotFoundError:
            optional = name == "rapidocr"
            advice = "optional; the task `text` needs pam-plugins[ocr]" if optional else f"pip install {name}"
            checks.append((optional, f"{name} is not installed ({advice})"))
    return checks


def _disk() -> tuple[bool, str]:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    good = free > 2**30
    return good, f"{free / 2**30:.0f} GB free in {tempfile.gettempdir()}{'' if good else '; make room'}"


def _plugin_health() -> list[tuple[bool, str]]:
    return [
        (False, f"plugin {status.name} ({status.source}): {status.error}; mend it or uninstall it")
        if status.error
        else (True, f"plugin {status.name}: {'loaded' if status.loaded else 'left out'}")
        for status in registry.get_plugins().statuses
    ]


def _models_health() -> list[tuple[bool, str]]:
    """Load each model that is ready and prompt it on a picture of two colours."""
    picture = np.full((96, 128, 3), 230, np.uint8)
    picture[30:70, 40:90] = (200, 30, 30)
    checks = []
    for info in registry.model_infos().values():
        if info.missing:
            checks.append((True, f"model {info.name} is not ready: {info.missing}"))
            continue
        started = time.perf_counter()
        try:
            area = perceive(picture, [Prompt.at(60, 50)], model=info.name).regions[0].mask.area
            checks.append((area > 0, f"model {info.name}: answered in {time.perf_counter() - started:.1f} s"))
        except Exception as error:  # the check reports whatever is wrong
            checks.append((False, f"model {info.name}: {type(error).__name__}: {error}"))
        release_model()
    return checks
