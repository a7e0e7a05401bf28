"""Find and load plugins, and look things up in them by name: models, tasks, proposers, sources, sinks.

Built-in plugins come first, then the doors of this distribution, then external ones from the entry-point group `pam`.
`PAM_PLUGINS` limits the external ones to a comma-separated list of their names; set to nothing, it loads none. A
plugin that fails is reported by name and takes nothing else down.
"""

from __future__ import annotations

import importlib
import logging
import os
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from threading import Lock
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import pluggy

from pam_core.contracts import ModelInfo, PostProcessor, Proposer, RegionModel
from pam_core.devices import resolve_device
from pam_core.errors import NotFoundError, NotReadyError, UnsupportedError
from pam_core.types import Task
from pam_plugins import hookspecs
from pam_plugins.datasets.contracts import SinkFormat, SourceFormat

logger = logging.getLogger(__name__)

BUILTIN_PLUGINS = ("pam_plugins.builtin", "pam_plugins.models.lite", "pam_plugins.models.pam")
DOORS = {"fiftyone": "fiftyone_plugin.commands"}
"""What the doors bring. They import `pam_plugins` and are not imported by it: they are loaded by name, as external
plugins are, in a checkout and where they are installed alike.
"""


@dataclass(frozen=True)
class PluginStatus:
    """One plugin as found. Not `loaded` and no `error`: left out by PAM_PLUGINS. Both: loaded, but a hook failed."""

    name: str
    source: str
    loaded: bool
    hooks: tuple[str, ...] = ()
    error: str | None = None


class Plugins:
    """The loaded plugins, and the status of all."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("pam")
        self.manager.add_hookspecs(hookspecs)
        self.statuses: list[PluginStatus] = []
        for module in BUILTIN_PLUGINS:
            self._register(importlib.import_module(module), module.rsplit(".", 1)[1], "built in")
        for name, module in DOORS.items():
            self._load(EntryPoint(name, module, "pam"), source="a door")
        wanted = os.environ.get("PAM_PLUGINS")
        names = None if wanted is None else {name.strip() for name in wanted.split(",") if name.strip()}
        for entry in sorted(entry_points(group="pam"), key=lambda e: e.name):
            source = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
            if names is None or entry.name in names:
                self._load(entry, source)
            else:
                self.statuses.append(PluginStatus(entry.name, source, loaded=False))

    def _load(self, entry: EntryPoint, source: str) -> None:
        try:
            self._register(entry.load(), entry.name, source)
        except (Exception, SystemExit) as error:  # whatever an import raises must not take the rest down
            self.statuses.append(PluginStatus(entry.name, source, loaded=False, error=_message(error)))

    def _register(self, plugin: object, name: str, source: str) -> None:
        """Register a plugin or, where something about it is wrong, nothing of it."""
        if self.manager.has_plugin(name):
            raise ValueError(f"a plugin called {name!r} is already registered; uninstall one of the two")
        if getattr(plugin, "__hash__", None) is None:
            raise ValueError(f"got a {type(plugin).__name__}; wanted a plugin that is hashable, such as a module")
        try:
            self.manager.register(plugin, name)
            self.manager.check_pending()
        except pluggy.PluginValidationError as error:
            if self.manager.has_plugin(name):
                self.manager.unregister(plugin)
            raise ValueError(f"{error}; the hooks are listed in docs/hooks.md") from error
        hooks = tuple(sorted(caller.name for caller in self.manager.get_hookcallers(plugin) or ()))
        self.statuses.append(PluginStatus(name, source, loaded=True, hooks=hooks))

    @contextmanager
    def registered(self, plugin: object, name: str) -> Iterator[None]:
        """Have one more plugin for the length of a `with` block."""
        self._register(plugin, name, "registered by the program")
        try:
            yield
        finally:
            self.manager.unregister(plugin)
            self.statuses = [status for status in self.statuses if status.name != name]

    def call(self, hook: str, /, **arguments: object) -> list[Any]:
        """The results of a hook by plugin in order of registration; lists are joined.

        Each plugin is called by itself, with the wrappers around it, so that one that raises ends no other's call.
        """
        implementations = getattr(self.manager.hook, hook).get_hookimpls()
        plain = [impl for impl in implementations if not (impl.wrapper or impl.hookwrapper)]
        results: list[Any] = []
        for implementation in plain:
            others = [other.plugin for other in plain if other.plugin is not implementation.plugin]
            try:
                for result in self.manager.subset_hook_caller(hook, others)(**arguments):
                    results += list(result)
            except Exception as error:
                self._report(error, hook, implementation, implementations)
        return results

    def _report(
        self, error: Exception, hook: str, called: pluggy.HookImpl, implementations: Sequence[pluggy.HookImpl]
    ) -> None:
        """Note an error in the status of the plugin that raised it, and log it once."""
        by_code = {getattr(impl.function, "__code__", None): impl.plugin_name for impl in implementations}
        frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
        name = next((by_code[code] for code in reversed(frames) if code in by_code), called.plugin_name)
        message = f"{hook} raised {_message(error)}"
        for index, status in enumerate(self.statuses):
            if status.name == name and status.error != message:
                logger.warning("The plugin %s: %s", name, message, exc_info=error)
                self.statuses[index] = replace(status, error=message)


def _message(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


@lru_cache(maxsize=1)
def get_plugins() -> Plugins:
    """The plugins of this process, found and loaded at the first call."""
    return Plugins()


def announce(hook: str, /, **arguments: object) -> None:
    """Tell every plugin of an event; one that raises disturbs no other."""
    get_plugins().call(hook, **arguments)


def model_infos() -> dict[str, ModelInfo]:
    """The known models by name, best first, those that cannot be loaded here included."""
    infos: dict[str, ModelInfo] = _by_name("pam_models")
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
    """The model called `name`, for "auto" the best that is ready and tracks objects, with captions in `languages`.

    Raises NotFoundError, NotReadyError and UnsupportedError.
    """
    able = [info for info in model_infos().values() if info.video]
    if name == "auto":
        ready = [info for info in able if info.missing is None]
        if not ready:
            lacks = " ".join(f"{info.name}: {info.missing}" for info in able) or "No plugin here brings one."
            raise NotFoundError(f"No model that tracks objects through a video is ready here. {lacks}")
        info = ready[0]
    else:
        info = resolve_model(name)
    if not info.video:
        names = ", ".join(each.name for each in able) or "none that is known here"
        raise UnsupportedError(f"{info.name} is for pictures and tracks no objects; models that do: {names}.")
    known = frozenset[str]().union(*info.tasks.values())
    if lacking := [language for language in languages if language not in known]:
        raise UnsupportedError(
            f"{info.name} has no captions in {', '.join(lacking)}; it has them in {', '.join(sorted(known))}."
        )
    return info


def load_model(name: str = "auto", device: str = "auto", compile: bool = False) -> RegionModel:
    """Load a model, or return the one that is loaded: it stays as long as somebody holds it.

    Raises NotFoundError, DeviceError, and what loading it raises.
    """
    info = resolve_model(name)
    key = (info.name, info.revision, str(resolve_device(device)), compile)
    with _loading:
        model = _loaded.get(key)
        if model is None:
            if info.load is None:
                raise NotFoundError(f"The model {info.name!r} is listed without a way to load it.")
            model = _loaded[key] = info.load(key[2], compile)
        return model


_loading = Lock()
_loaded: WeakValueDictionary[tuple[str, str, str, bool], RegionModel] = WeakValueDictionary()


def tasks() -> dict[str, Task]:
    """Every registered task by name, in order of registration."""
    return _by_name("pam_tasks")


def proposers() -> dict[str, Proposer]:
    """Every registered proposer by name."""
    return _by_name("pam_proposers")


def proposer(name: str) -> Proposer:
    return _pick("proposer", proposers(), name, "`pam plugins`")


def postprocessors() -> dict[str, PostProcessor]:
    """Every registered post-processor by name."""
    return _by_name("pam_postprocessors")


def postprocessor(name: str) -> PostProcessor:
    return _pick("post-processor", postprocessors(), name, "`pam plugins`")


def sources() -> dict[str, SourceFormat]:
    """Every registered kind of source by name."""
    return _by_name("pam_sources")


def source(name: str) -> SourceFormat:
    return _pick("kind of source", sources(), name, "`pam plugins`")


def sinks() -> dict[str, SinkFormat]:
    """Every registered kind of sink by name."""
    return _by_name("pam_sinks")


def sink(name: str) -> SinkFormat:
    return _pick("kind of sink", sinks(), name, "`pam plugins`")


def _by_name(hook: str) -> dict[str, Any]:
    """What the plugins bring through a hook, by name; of one name the first registered stays."""
    found: dict[str, Any] = {}
    for thing in get_plugins().call(hook):
        found.setdefault(thing.name, thing)
    return found


Thing = TypeVar("Thing")


def _pick(kind: str, things: dict[str, Thing], name: str, where: str) -> Thing:
    if name not in things:
        raise NotFoundError(
            f"No {kind} is called {name!r}; there is {', '.join(things) or 'none'}. "
            f"Install the plugin that brings it and look again with {where}."
        )
    return things[name]
