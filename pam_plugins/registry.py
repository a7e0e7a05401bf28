"""From names to things: models, tasks, proposers, post-processors, exporters, stores, from whichever plugin."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from pam_core.contracts import Exporter, ModelInfo, PostProcessor, Proposer, RegionModel, UnsupportedError
from pam_core.types import Task
from pam_plugins.plugins import get_plugins

if TYPE_CHECKING:
    from pam_plugins.datasets.contracts import Store


class NotFoundError(LookupError):
    """A name nobody registered, or one that cannot be used here: says what there is and what to do."""


class NotReadyError(NotFoundError):
    """A known model that cannot be loaded here: says what it lacks."""


Thing = TypeVar("Thing")


def model_infos() -> dict[str, ModelInfo]:
    """The known models by name, best first, those that cannot be loaded here included."""
    infos = _by_name("pam_models")
    return dict(sorted(infos.items(), key=lambda item: -item[1].rank))


def resolve_model(name: str = "auto") -> ModelInfo:
    """The model called `name`; for "auto" the best that is ready. Raises NotFoundError and NotReadyError."""
    infos = model_infos()
    if name == "auto":
        ready = [info for info in infos.values() if info.missing is None]
        if not ready:
            raise NotFoundError("No model is ready here; `pam models` says what each of them lacks.")
        return ready[0]
    info = _pick("model", infos, name, "`pam models`")
    if info.missing is not None:
        raise NotReadyError(f"The model {name!r} cannot be loaded here: {info.missing}")
    return info


def resolve_video_model(name: str = "auto", languages: Sequence[str] = ()) -> ModelInfo:
    """The model called `name`, for "auto" the best that is ready and follows objects, with captions in `languages`.

    Raises NotFoundError, NotReadyError and UnsupportedError.
    """
    able = [info for info in model_infos().values() if info.video]
    if name == "auto":
        ready = [info for info in able if info.missing is None]
        if not ready:
            lacks = " ".join(f"{info.name}: {info.missing}" for info in able) or "No plugin here brings one."
            raise NotFoundError(f"No model that follows objects through a video is ready here. {lacks}")
        info = ready[0]
    else:
        info = resolve_model(name)
    if not info.video:
        names = ", ".join(each.name for each in able) or "none that is known here"
        raise UnsupportedError(f"{info.name} looks at pictures and follows no objects; models that do: {names}.")
    known = frozenset[str]().union(*info.tasks.values())
    if lacking := [language for language in languages if language not in known]:
        raise UnsupportedError(
            f"{info.name} has no captions in {', '.join(lacking)}; it has them in {', '.join(sorted(known))}."
        )
    return info


def load_model(name: str = "auto", device: str = "auto", compile: bool = False) -> RegionModel:
    """Load a model, or return the one loaded before. Raises NotFoundError, and what loading it raises."""
    with _loading:
        return _load_once(resolve_model(name).name, device, compile)


_loading = Lock()


@lru_cache(maxsize=4)
def _load_once(name: str, device: str, compile: bool) -> RegionModel:
    plugins = get_plugins()
    plugin = next(plugin for plugin, info in plugins.things("pam_models") if info.name == name)
    model: RegionModel | None = plugins.ask(plugin, "pam_load_model", name=name, device=device, compile=compile)
    if model is None:
        raise NotFoundError(f"The plugin {plugin!r} lists the model {name!r} and does not load it.")
    return model


def tasks() -> dict[str, Task]:
    """Every registered task by name, in order of registration."""
    return _by_name("pam_tasks")


def proposers() -> dict[str, Proposer]:
    """Every registered way to find regions by name."""
    return _by_name("pam_proposers")


def proposer(name: str) -> Proposer:
    return _pick("proposer", proposers(), name, "`pam plugins`")


def postprocessors() -> dict[str, PostProcessor]:
    """Every registered post-processor by name."""
    return _by_name("pam_postprocessors")


def postprocessor(name: str) -> PostProcessor:
    return _pick("post-processor", postprocessors(), name, "`pam plugins`")


def exporters() -> dict[str, Exporter]:
    """Every registered exporter by name."""
    return _by_name("pam_exporters")


def exporter(name: str) -> Exporter:
    return _pick("exporter", exporters(), name, "`pam plugins`")


def stores() -> dict[str, Store]:
    """Every registered kind of store by name."""
    return _by_name("pam_stores")


def store(name: str) -> Store:
    return _pick("kind of store", stores(), name, "`pam plugins`")


def _by_name(hook: str) -> dict[str, Any]:
    """What the plugins bring through a hook, by name; of one name the first registered stays."""
    found: dict[str, Any] = {}
    for _, thing in get_plugins().things(hook):
        found.setdefault(thing.name, thing)
    return found


def _pick(kind: str, things: dict[str, Thing], name: str, where: str) -> Thing:
    if name not in things:
        raise NotFoundError(
            f"No {kind} is called {name!r}; there is {', '.join(things) or 'none'}. "
            f"Install the plugin that brings it and look again with {where}."
        )
    return things[name]
