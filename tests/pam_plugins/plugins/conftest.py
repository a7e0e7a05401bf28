"""Plugins of one test alone, and plugins put where Python finds them."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pam_plugins import release_model
from pam_plugins.plugins import Plugins, get_plugins
from tests.pam_plugins.plugins.fakes import Install, write_plugin


@pytest.fixture
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plugins]:
    """Plugins of this test alone: none built in, none installed, and no model loaded before."""
    monkeypatch.setattr("pam_plugins.plugins.BUILTIN_PLUGINS", ())
    monkeypatch.setattr("pam_plugins.plugins.DOORS", {})
    monkeypatch.setenv("PAM_PLUGINS", "")
    release_model()
    get_plugins.cache_clear()
    yield get_plugins()
    release_model()
    get_plugins.cache_clear()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """`install(name, code)` puts a distribution with one plugin on the import path, as pip would."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delenv("PAM_PLUGINS", raising=False)
    modules: list[str] = []
    numbers = itertools.count(1)

    def install(name: str, code: str, distribution: str | None = None) -> str:
        module = f"pam_test_plugin_{next(numbers)}"
        modules.append(module)
        write_plugin(site, name, module, code, distribution or f"test-{name}")
        return module

    yield install
    for module in modules:
        sys.modules.pop(module, None)
