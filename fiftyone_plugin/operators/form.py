"""What the operators share: parts of their forms, and how a call from Python is scheduled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types

from pam_core.contracts import ModelInfo
from pam_core.errors import UnsupportedError
from pam_core.types import Language
from pam_plugins import plugins
from pam_plugins.options import ON_REQUEST_TASKS, Options

LANGUAGES = {Language.EN.value: "English", Language.ZH.value: "Chinese"}
NO_FIELD = "*"
"""Stands for no field of prompts: the App shows nothing for an empty choice."""
Context = Any
"""FiftyOne's ExecutionContext."""


def choices(labels: dict[str, str]) -> types.DropdownView:
    """A dropdown of these values, with these labels."""
    view = types.DropdownView()
    for value, label in labels.items():
        view.add_choice(value, label=label)
    return view


def choose_model(inputs: types.Object, ctx: Context, *, video: bool = False) -> ModelInfo:
    """The model, its tasks (of a video there is one only, the caption) and the languages; the chosen model.

    Raises NotFoundError where none is ready.
    """
    infos = {name: info for name, info in plugins.model_infos().items() if info.video or not video}
    ready = {name: f"{name}: {info.description}" for name, info in infos.items() if info.missing is None}
    default = next(iter(ready), None)
    inputs.enum(
        "model", list(ready), default=default, label="Model", view=choices(ready),
        description="`pam models` on the command line says how to get others",
    )  # fmt: skip
    info = plugins.resolve_model(ctx.params.get("model") or default or "auto")
    choose_words(inputs, info, tasks=not video)
    return info


def choose_words(inputs: types.Object, info: ModelInfo, *, tasks: bool = True) -> None:
    """What a model is to write, where `tasks`, and the languages."""
    able = [task for task in info.tasks if task not in info.lacking]
    if tasks:
        _choose_tasks(inputs, able)
    languages = sorted({code for task in able for code in info.tasks[task]})
    inputs.list(
        "languages", types.String(), label="Languages", default=["en"],
        view=types.DropdownView(
            multiple=True, choices=[types.Choice(code, label=LANGUAGES.get(code, code)) for code in languages]
        ),
    )  # fmt: skip


def _choose_tasks(inputs: types.Object, tasks: list[str]) -> None:
    inputs.list(
        "tasks", types.String(), label="What to write", default=[t for t in tasks if t not in ON_REQUEST_TASKS],
        view=types.DropdownView(multiple=True, choices=[types.Choice(task, label=_task(task)) for task in tasks]),
    )  # fmt: skip


def _task(name: str) -> str:
    task = plugins.tasks().get(name)
    return f"{name}: {task.description}" if task else name


def say(inputs: types.Object, name: str, text: str, *, error: bool = False) -> None:
    """A notice in the form; an error keeps the form from being executed."""
    view = types.Error(label=text) if error else types.Notice(label=text)
    prop = inputs.view(name, view)
    if error:
        prop.invalid = True
        prop.error_message = text


def as_list(value: Any) -> list[Any]:
    """A list parameter however it was given: nothing, one value or several."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def checked_options(info: ModelInfo, params: Mapping[str, Any]) -> Options:
    """The options that parameters ask for. Raises UnsupportedError where the model cannot do them."""
    tasks = tuple(as_list(params.get("tasks"))) or None
    languages = tuple(as_list(params.get("languages"))) or ("en",)
    if any(not isinstance(value, str) for value in (*(tasks or ()), *languages)):
        raise UnsupportedError(f"Got tasks {tasks} and languages {languages}; wanted their names.")
    options = Options(tasks=tasks, languages=languages, proposer=params.get("proposer") or Options.proposer)
    options.tasks_for(info)
    return options


def chosen_field(params: Mapping[str, Any]) -> str | None:
    """The field of prompts that was chosen; None for none."""
    name = params.get("prompt_field")
    return str(name) if name and name != NO_FIELD else None


def schedule(operator: foo.Operator, view: Any, settings: Mapping[str, Any]) -> Any:
    """Leave the work to `fiftyone delegated launch`; returns the operation that was queued."""
    context = {"view": view.view() if isinstance(view, fo.Dataset) else view, "params": dict(settings)}
    return foo.execute_operator(operator.uri, context, request_delegation=True).result
