"""From names to things: models, tasks, proposers, post-processors and exporters, from whichever plugin has them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Protocol, TypeVar

from pam_core.contracts import Exporter, ModelInfo, PostProcessor, Proposer, RegionModel
from pam_core.types import Task
from pam_plugins.manager import get_plugins


class NotFoundError(LookupError):
    """A name nobody registered, or one that cannot be used here: says what there is and what to do."""


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Thing = TypeVar("Thing", bound=_Named)


def model_infos() -> dict[str, ModelInfo]:
    """The known models by name, best first, those that cannot be loaded here included."""
    infos = _by_name(get_plugins().manager.hook.pam_models())
    return dict(sorted(infos.items(), key=lambda item: -item[1].rank))


def resolve_model(name: str = "auto") -> ModelInfo:
    """The model called `name`; for "auto" the best that is ready. Raises NotFoundError."""
    infos = model_infos()
    if name == "auto":
        ready = [info for info in infos.values() if info.missing is None]
        if not ready:
            raise NotFoundError("No model is ready here; `pam models` says what each of them lacks.")
        return ready[0]
    info = _pick("model", infos, name, "`pam models`")
    if info.missing is not None:
        raise NotFoundError(f"The model {name!r} cannot be loaded here: {info.missing}")
    return info


def load_model(name: str = "auto", device: str = "auto") -> RegionModel:
    """Load a model, or return the one loaded before. Raises NotFoundError."""
    return _load_once(resolve_model(name).name, device)


@lru_cache(maxsize=4)
def _load_once(name: str, device: str) -> RegionModel:
    model: RegionModel | None = get_plugins().manager.hook.pam_load_model(name=name, device=device)
    if model is None:
        raise NotFoundError(f"The plugin that lists the model {name!r} does not load it; `pam plugins` names it.")
    return model


def tasks() -> dict[str, Task]:
    """Every registered task by name, in order of registration."""
    return _by_name(get_plugins().manager.hook.pam_tasks())


def proposer(name: str) -> Proposer:
    return _pick("proposer", _by_name(get_plugins().manager.hook.pam_proposers()), name, "`pam plugins`")


def postprocessor(name: str) -> PostProcessor:
    return _pick("post-processor", _by_name(get_plugins().manager.hook.pam_postprocessors()), name, "`pam plugins`")


def exporters() -> dict[str, Exporter]:
    """Every registered exporter by name."""
    return _by_name(get_plugins().manager.hook.pam_exporters())


def exporter(name: str) -> Exporter:
    return _pick("exporter", exporters(), name, "`pam plugins`")


def _by_name(groups: Iterable[Iterable[Thing]]) -> dict[str, Thing]:
    """Flatten what the plugins returned. pluggy calls the last registered first; of one name the first stays."""
    found: dict[str, Thing] = {}
    for group in reversed(list(groups)):
        for thing in group:
            found.setdefault(thing.name, thing)
    return found


def _pick(kind: str, things: dict[str, Thing], name: str, where: str) -> Thing:
    if name not in things:
        raise NotFoundError(
            f"No {kind} is called {name!r}; there is {', '.join(things) or 'none'}. "
            f"Install the plugin that brings it and look again with {where}."
        )
    return things[name]
