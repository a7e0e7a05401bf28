"""A made-up model as a plugin, in this process and in others."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from pam_core.engine.cache import shared_cache
from pam_plugins import plugins
from pam_plugins.cli import app, console
from pam_plugins.plugins import get_plugins
from tests.factories import FakePlugin, Shape, shapes, write_picture
from tests.paths import ROOT

Pam = Callable[..., Result]
"""`pam perceive ... --model fake`, the fixture."""


@pytest.fixture
def fake() -> Iterator[FakePlugin]:
    """The plugin that brings the model `fake`, registered for one test. Nothing of it is left in any cache."""
    plugins._load_once.cache_clear()
    shared_cache.clear()
    plugin = FakePlugin()
    with get_plugins().registered(plugin, "fake"):
        yield plugin
    plugins._load_once.cache_clear()
    shared_cache.clear()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that has the same plugin installed, under the entry point `fake`.

    FAKE_SECONDS is how long its model takes for each picture, FAKE_LOG the file that it logs them in.
    """
    site = tmp_path / "site"
    info = site / "fake_pam-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-pam\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pam]\nfake = fake_pam:plugin\n")
    (site / "fake_pam.py").write_text(
        "import os\n"
        "from tests.factories import FakeModel, FakePlugin\n"
        "model = FakeModel(seconds=float(os.environ.get('FAKE_SECONDS', '0')), log=os.environ.get('FAKE_LOG'))\n"
        "plugin = FakePlugin(model)\n"
    )
    paths = [str(site), str(ROOT), str(ROOT / "core")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PAM_PLUGINS": "fake", "COLUMNS": "200"}


@pytest.fixture
def python() -> list[str]:
    return [sys.executable]


@pytest.fixture
def pam(fake: FakePlugin, monkeypatch: pytest.MonkeyPatch) -> Pam:
    """`pam perceive ... --model fake`; fails the test where an error comes out as a traceback."""
    monkeypatch.setattr(console.out, "_width", 200)

    def call(*arguments: object, model: str = "fake") -> Result:
        result = CliRunner().invoke(app, ["perceive", *map(str, arguments), "--model", model])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise AssertionError(f"a traceback instead of a sentence: {result.exception!r}") from result.exception
        return result

    return call


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, list[Shape]]:
    picture, known = shapes(120, 90, 4)
    return write_picture(tmp_path / "scene.png", picture), known
