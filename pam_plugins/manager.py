"""Finds plugins and loads them. A plugin that fails is reported by name and takes nothing else down.

Built-in plugins come first, external ones from the entry-point group `pam`. `PAM_PLUGINS` limits the external ones
to a comma-separated list of their names; set to nothing, it loads none.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

import pluggy

from pam_plugins import hookspecs

BUILTIN_PLUGINS = (
    "pam_plugins.builtin.tasks",
    "pam_plugins.builtin.lite",
    "pam_plugins.builtin.everything",
    "pam_plugins.builtin.exporters",
)


@dataclass(frozen=True)
class PluginStatus:
    """One plugin as found: `error` is set where it could not be loaded, `loaded` is false where it was left out."""

    name: str
    source: str
    loaded: bool
    hooks: tuple[str, ...] = ()
    error: str | None = None


class Plugins:
    """The loaded plugins and what became of the others."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("pam")
        self.manager.add_hookspecs(hookspecs)
        self.statuses: list[PluginStatus] = []
        for module in BUILTIN_PLUGINS:
            self._register(importlib.import_module(module), module.rsplit(".", 1)[1], "built in")
        wanted = os.environ.get("PAM_PLUGINS")
        names = None if wanted is None else {name.strip() for name in wanted.split(",") if name.strip()}
        for entry in sorted(entry_points(group="pam"), key=lambda e: e.name):
            self._load(entry, wanted=names is None or entry.name in names)

    def _load(self, entry: EntryPoint, *, wanted: bool) -> None:
        source = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
        if not wanted:
            self.statuses.append(PluginStatus(entry.name, source, loaded=False))
            return
        try:
            self._register(entry.load(), entry.name, source)
        except Exception as error:  # whatever a stranger's import raises must not take the rest down
            message = f"{type(error).__name__}: {error}"
            self.statuses.append(PluginStatus(entry.name, source, loaded=False, error=message))

    def _register(self, plugin: object, name: str, source: str) -> None:
        self.manager.register(plugin, name)
        unknown = [
            attribute
            for attribute in dir(plugin)
            if attribute.startswith("pam_")
            and self.manager.parse_hookimpl_opts(plugin, attribute) is not None
            and not hasattr(hookspecs, attribute)
        ]
        if unknown:
            self.manager.unregister(plugin)
            raise AttributeError(f"no such hook: {', '.join(unknown)}; the hooks are listed in docs/hooks.md")
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


@lru_cache(maxsize=1)
def get_plugins() -> Plugins:
    """The plugins of this process, found and loaded at the first call."""
    return Plugins()
