"""A made-up model as a plugin, in this process and in others."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pytest

from pam_core.engine.cache import shared_cache
from pam_plugins import plugins
from pam_plugins.cli import console, main
from pam_plugins.plugins import get_plugins
from tests.factories import FakePlugin, Shape, shapes, write_picture
from tests.paths import ROOT


class Ended(NamedTuple):
    """How a command ended, and what it printed."""

    exit_code: int
    stdout: str
    stderr: str


Pam = Callable[..., Ended]
"""`pam perceive ... --model fake`, the fixture."""


def run_main(*arguments: object) -> Ended:
    """`pam` in this process; an exception that becomes no sentence fails the test."""
    printed, errors, code = StringIO(), StringIO(), 0
    with redirect_stdout(printed), redirect_stderr(errors):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
    return Ended(code, printed.getvalue(), errors.getvalue())


@pytest.fixture
def fake() -> Iterator[FakePlugin]:
    """The plugin that brings the model `fake`, registered for one test. Nothing of it is left in any cache."""
    plugins._loaded.clear()
    shared_cache.clear()
    plugin = FakePlugin()
    with get_plugins().registered(plugin, "fake"):
        yield plugin
    plugins._loaded.clear()
    shared_cache.clear()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that has the same plugin installed, under the entry point `fake`.

    FAKE_SECONDS is how long its model takes for each picture, FAKE_LOG the file that it logs them in. Its process
    ends at the picture FAKE_FATAL; with FAKE_BROKEN it cannot be loaded.
    """
    site = tmp_path / "site"
    info = site / "fake_pam-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-pam\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pam]\nfake = fake_pam:plugin\n")
    (site / "fake_pam.py").write_text(
        "import os\n"
        "from pam_plugins.hookspecs import hookimpl\n"
        "from tests.factories import FakeModel, FakePlugin\n"
        "model = FakeModel(seconds=float(os.environ.get('FAKE_SECONDS', '0')), log=os.environ.get('FAKE_LOG'))\n"
        "plugin = FakePlugin(model)\n"
        "if fatal := os.environ.get('FAKE_FATAL'):\n"
        "    from pam_plugins import pipeline\n"
        "    read = pipeline.read_picture\n"
        "    pipeline.read_picture = lambda path: os._exit(1) if path.name == fatal else read(path)\n"
        "if os.environ.get('FAKE_BROKEN'):\n"
        "    from dataclasses import replace\n"
        "    def broken(device, compile):\n"
        "        raise OSError('no weights')\n"
        "    FakePlugin.pam_models = hookimpl(lambda self: [replace(model.info, load=broken)])\n"
    )
    paths = [str(site), str(ROOT), str(ROOT / "core")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PAM_PLUGINS": "fake", "COLUMNS": "200"}


@pytest.fixture
def python() -> list[str]:
    return [sys.executable]


@pytest.fixture
def pam(fake: FakePlugin, monkeypatch: pytest.MonkeyPatch) -> Pam:
    """`pam perceive ... --model fake`."""
    monkeypatch.setattr(console.out, "_width", 200)

    def call(*arguments: object, model: str = "fake") -> Ended:
        return run_main("perceive", *arguments, "--model", model)

    return call


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, list[Shape]]:
    picture, known = shapes(120, 90, 4)
    return write_picture(tmp_path / "scene.png", picture), known
