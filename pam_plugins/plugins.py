"""Finds plugins and loads them. A plugin that fails is reported by name and takes nothing else down.

Built-in plugins come first, then the doors of this distribution, then external ones from the entry-point group
`pam`. `PAM_PLUGINS` limits the external ones to a comma-separated list of their names; set to nothing, it loads none.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from pam_plugins import hookspecs

logger = logging.getLogger(__name__)

BUILTIN_PLUGINS = ("pam_plugins.builtin", "pam_plugins.models.lite", "pam_plugins.models.pam")
DOORS = {"fiftyone": "fiftyone_plugin.commands"}
"""What the doors bring to the command line. They import `pam_plugins` and are not imported by it: they are loaded by
name, as strangers are, in a checkout and where they are installed alike, and none takes the rest down.
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
    """The loaded plugins and what became of the others."""

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
        except (Exception, SystemExit) as error:  # whatever a stranger's import raises must not take the rest down
            self.statuses.append(PluginStatus(entry.name, source, loaded=False, error=_said(error)))

    def _register(self, plugin: object, name: str, source: str) -> None:
        """Register a plugin or, where something about it is wrong, nothing of it."""
        if self.manager.has_plugin(name):
            raise ValueError(f"a plugin called {name!r} is already registered; uninstall one of the two")
        try:
            self.manager.register(plugin, name)
            self.manager.check_pending()
        except pluggy.PluginValidationError as error:
            if self.manager.has_plugin(name):
                self.manager.unregister(plugin)
            raise ValueError(f"{error}; the hooks are listed in docs/hooks.md") from error
        callers = self.manager.get_hookcallers(plugin) or ()
        hooks = tuple(sorted(caller.name for caller in callers))
        if any(i.wrapper or i.hookwrapper for caller in callers for i in caller.get_hookimpls()):
            self.manager.unregister(plugin)
            raise ValueError("hook wrappers are not supported; post-processors and pam_perceived see every result")
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

    def things(self, hook: str) -> list[tuple[str, Any]]:
        """What the plugins bring through a hook that lists things, each with its plugin's name, in order of
        registration. A plugin that raises brings nothing; the others are not disturbed.
        """
        found: list[tuple[str, Any]] = []
        for implementation in self._implementations(hook):
            with self._blaming(implementation.plugin_name, hook):
                found += [(implementation.plugin_name, thing) for thing in _call(implementation, {}) or ()]
        return found

    def tell(self, hook: str, /, **arguments: object) -> None:
        """Announce an event to the plugins in order of registration; one that raises disturbs no other."""
        for implementation in self._implementations(hook):
            with self._blaming(implementation.plugin_name, hook):
                _call(implementation, arguments)

    def ask(self, plugin: str, hook: str, /, **arguments: object) -> Any:
        """What one plugin answers; None where it does not have the hook. What it raises is passed on."""
        for implementation in self._implementations(hook):
            if implementation.plugin_name == plugin:
                return _call(implementation, arguments)
        return None

    def _implementations(self, hook: str) -> list[pluggy.HookImpl]:
        """Not called through pluggy, which lets one plugin's error end the call for all."""
        return getattr(self.manager.hook, hook).get_hookimpls()

    @contextmanager
    def _blaming(self, name: str, hook: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a stranger's mistake
            message = f"{hook} raised {_said(error)}"
            for index, status in enumerate(self.statuses):
                if status.name == name and status.error != message:
                    logger.warning("The plugin %s: %s", name, message, exc_info=error)
                    self.statuses[index] = replace(status, error=message)


def _call(implementation: pluggy.HookImpl, arguments: Mapping[str, object]) -> Any:
    return implementation.function(*(arguments[name] for name in implementation.argnames))


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


@lru_cache(maxsize=1)
def get_plugins() -> Plugins:
    """The plugins of this process, found and loaded at the first call."""
    return Plugins()
