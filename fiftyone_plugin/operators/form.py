"""Parts of the operators' forms, and what parameters mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fiftyone.operators import types

from pam_core.contracts import ModelInfo
from pam_core.errors import UnsupportedError
from pam_core.types import Language
from pam_plugins import plugins
from pam_plugins.options import ON_REQUEST_TASKS

LANGUAGES = {Language.EN.value: "English", Language.ZH.value: "Chinese"}
NO_FIELD = "*"
"""Stands for no field of prompts: the App shows nothing for an empty choice."""
FRAMES = "frames."
Context = Any
"""FiftyOne's ExecutionContext."""


def choose(
    inputs: types.Object, name: str, labels: Mapping[str, str], default: str | None = None, **named: Any
) -> None:
    """Add a dropdown of these values, with these labels; the first is the default."""
    inputs.enum(name, list(labels), default=default or next(iter(labels), None), view=choices(labels), **named)


def choices(labels: Mapping[str, str], **named: Any) -> types.DropdownView:
    """A dropdown of these values, with these labels."""
    return types.DropdownView(choices=[types.Choice(value, label=label) for value, label in labels.items()], **named)


def choose_model(inputs: types.Object, ctx: Context, *, video: bool = False) -> ModelInfo:
    """Add the model, its tasks (videos have one only, the caption) and the languages; the chosen model.

    Raises NotFoundError where none is ready.
    """
    infos = {name: info for name, info in plugins.model_infos().items() if info.video or not video}
    ready = {name: f"{name}: {info.description}" for name, info in infos.items() if info.missing is None}
    hint = "`pam models` on the command line says how to get others"
    choose(inputs, "model", ready, label="Model", description=hint)
    info = plugins.resolve_model(ctx.params.get("model") or next(iter(ready), "auto"))
    choose_texts(inputs, info, tasks=not video)
    return info


def choose_texts(inputs: types.Object, info: ModelInfo, *, tasks: bool = True) -> None:
    """Add the tasks of a model, unless `tasks` is off, and its languages."""
    able = [task for task in info.tasks if task not in info.lacking]
    if tasks:
        known = plugins.tasks()
        labels = {name: f"{name}: {known[name].description}" if name in known else name for name in able}
        default = [task for task in able if task not in ON_REQUEST_TASKS]
        view = choices(labels, multiple=True)
        inputs.list("tasks", types.String(), label="What to write", default=default, view=view)
    codes = sorted({code for task in able for code in info.tasks[task]})
    view = choices({code: LANGUAGES.get(code, code) for code in codes}, multiple=True)
    inputs.list("languages", types.String(), label="Languages", default=["en"], view=view)


def notice(inputs: types.Object, name: str, text: str, *, error: bool = False) -> None:
    """Add a notice; an error keeps the form from being executed."""
    shown = inputs.view(name, types.Error(label=text) if error else types.Notice(label=text))
    if error:
        shown.invalid = True
        shown.error_message = text


def as_list(value: Any) -> list[Any]:
    """A list parameter however it was given: nothing, one value or several."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def chosen_names(params: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    """The chosen tasks or languages; None without a choice. Raises UnsupportedError."""
    names = tuple(as_list(params.get(key)))
    if any(not isinstance(name, str) for name in names):
        raise UnsupportedError(f"Got {key} {names}; wanted their names.")
    return names or None


def chosen_field(params: Mapping[str, Any]) -> str | None:
    """The chosen field of prompts, without "frames."; None for none."""
    name = params.get("prompt_field")
    return str(name).removeprefix(FRAMES) if name and name != NO_FIELD else None


def given(params: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The parameters with these names that have a value."""
    return {name: params[name] for name in names if params.get(name) is not None}
