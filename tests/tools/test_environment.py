"""tools/environment.py without an installation: what it is keyed by, what it keeps, and who makes it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.paths import ROOT

SCRIPT = ROOT / "tools" / "environment.py"
PROJECT = """[project]
dependencies = ["numpy>=1", "torch>=2"]
[project.optional-dependencies]
ocr = ["reader"]
pam = ["sam2>=1", "tqdm"]
video = []
fiftyone = []
ray = []
dev = []
"""
SLOW = """
import importlib.util, sys, time
spec = importlib.util.spec_from_file_location("environment", sys.argv[1])
environment = importlib.util.module_from_spec(spec)
sys.modules["environment"] = environment
spec.loader.exec_module(environment)

def command(line, what):
    with open(sys.argv[2], "a") as log:
        log.write(what + "\\n")
    if "venv" in line:
        environment.Path(line[-1]).mkdir(parents=True)
    time.sleep(0.2)

environment.command = command
environment.main([])
"""


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, on a made-up project and an empty cache; the commands that it runs are in `lines`."""
    spec = importlib.util.spec_from_file_location("environment", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "environment", module)
    spec.loader.exec_module(module)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    lines: list[list[str]] = []

    def command(line: list[str], what: str) -> None:
        lines.append(line)
        if "venv" in line:
            Path(line[-1]).mkdir(parents=True)

    monkeypatch.setattr(module, "command", command)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setitem(module.__dict__, "lines", lines)
    step = module.Step("it", (*module.PIP, "{requirements}"))
    other = module.Kind(extras=None, lines=("host==1",), files=("*.msg",), steps=(step,))
    monkeypatch.setitem(module.KINDS, "other", other)
    return module


def test_the_key_is_what_goes_in(environment: ModuleType, tmp_path: Path) -> None:
    main, other = environment.key("main"), environment.key("other")
    assert main != other
    assert (main, other) == (environment.key("main"), environment.key("other"))
    (tmp_path / "pyproject.toml").write_text(PROJECT.replace("tqdm", "tqdm>=4"))
    changed = environment.key("main")
    assert changed != main
    (tmp_path / "pyproject.toml").write_text(PROJECT.replace("tqdm", "tqdm>=4") + "labelstudio = ['host']\n")
    assert environment.key("main") == changed, "an extra that this kind has not"
    assert environment.key("other") == other, "a kind without the project's requirements"
    (tmp_path / "a.msg").write_text("int32 a")
    with_file = environment.key("other")
    (tmp_path / "a.msg").write_text("int64 a")
    assert len({other, with_file, environment.key("other")}) == 3


def test_the_key_changes_with_a_step_and_not_with_its_description(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, key = environment.KINDS["other"], environment.key("other")
    renamed = tuple(step._replace(what="that") for step in kind.steps)
    monkeypatch.setitem(environment.KINDS, "other", kind._replace(steps=renamed))
    assert environment.key("other") == key
    more = (*kind.steps, environment.Step("more", ("{python}", "build.py")))
    monkeypatch.setitem(environment.KINDS, "other", kind._replace(steps=more))
    assert environment.key("other") != key


def test_it_is_made_once_and_its_interpreter_printed(
    environment: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.main(["--kind", "other"])
    python = Path(capsys.readouterr().out.strip())
    home = python.parent.parent
    assert home.name == f"other-{environment.key('other')}"
    assert [line[0] for line in environment.lines] == [sys.executable, str(python)]
    assert environment.lines[1][-1] == "host==1"
    environment.main(["--kind", "other"])
    assert len(environment.lines) == 2
    environment.main([])
    everything = next(line for line in environment.lines if "numpy>=1" in line)
    assert everything[-4:] == ["numpy>=1", "reader", "torch>=2", "tqdm"], "SAM 2 is a step of its own"


def test_an_unknown_kind_is_refused(environment: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        environment.main(["--kind", "none"])
    assert "main" in capsys.readouterr().err


def test_two_of_each_kind_are_kept(environment: ModuleType, tmp_path: Path) -> None:
    environments = tmp_path / "cache" / "pam-plugins" / "environments"
    names = ["main-1", "main-2", "0123456789ab", "other-1", "other-2"]  # one from before there were kinds
    for age, name in enumerate(names):
        (environments / name).mkdir(parents=True)
        (environments / name / "complete").touch()
        os.utime(environments / name / "complete", (1000 - age, 1000 - age))
    unfinished = environments / "main-3"
    unfinished.mkdir()
    now = environment.ensure("main").parent.parent
    assert {path.name for path in environments.iterdir() if path.is_dir()} == {
        now.name, "main-1", "main-3", "other-1", "other-2"
    }  # fmt: skip
    environment.ensure("other")
    kept = {path.name for path in environments.iterdir() if path.is_dir() and path.name.startswith("other")}
    assert kept == {f"other-{environment.key('other')}", "other-1"}


def test_use_makes_it_young_again(environment: ModuleType) -> None:
    stamp = environment.ensure("other").parent.parent / "complete"
    os.utime(stamp, (1000, 1000))
    environment.ensure("other")
    assert stamp.stat().st_mtime > 1000


def test_a_broken_installation_is_made_anew(
    environment: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = environment.command

    def broken(line: list[str], what: str) -> None:
        command(line, what)
        if "pip" in line:
            raise SystemExit(1)

    monkeypatch.setattr(environment, "command", broken)
    with pytest.raises(SystemExit):
        environment.ensure("other")
    assert not list(tmp_path.rglob("complete"))
    (home,) = tmp_path.glob("cache/pam-plugins/environments/other-*/")
    leftover = home / "half of a package"
    leftover.touch()
    monkeypatch.setattr(environment, "command", command)
    environment.ensure("other")
    assert (home / "complete").exists() and not leftover.exists()


def test_the_output_of_a_failed_command_is_shown() -> None:
    failing = [sys.executable, "-c", "import sys; sys.exit('no such package')"]
    line = [sys.executable, "-c", f"import runpy; runpy.run_path({str(SCRIPT)!r})['command']({failing}, 'it')"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no such package" in done.stderr and " failed " in done.stderr


def test_too_little_room_is_told(environment: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = environment.KINDS["other"]
    monkeypatch.setitem(environment.KINDS, "other", kind._replace(needed_gb=10**6))
    with pytest.raises(SystemExit):
        environment.ensure("other")
    assert environment.lines == []


def test_of_two_processes_one_makes_it_and_one_waits(tmp_path: Path) -> None:
    log = tmp_path / "log"
    variables = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    line = [sys.executable, "-c", SLOW, str(SCRIPT), str(log)]
    processes = [
        subprocess.Popen(line, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ended = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    assert ended[0][0] == ended[1][0] != ""
    steps = log.read_text().splitlines()
    assert len(steps) == len(set(steps)), "each step once"
    assert sorted("waiting" in errors for _, errors in ended) == [False, True]
