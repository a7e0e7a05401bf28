"""Finding and loading plugins: what is built in, what is installed, what is left out, and what fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pam_core.types import Task
from pam_plugins import hookimpl, plugins
from pam_plugins.plugins import Plugins, PluginStatus
from tests.pam_plugins.plugins.fakes import FakePlugin, Install, fake_info

GOOD = """
from pam_core.types import Task
from pam_plugins import hookimpl

@hookimpl
def pam_tasks():
    return [Task("{task}", "for a test")]
"""
BUILTIN = ["builtin", "lite", "pam"]
MODELS = {"lite", "pam-3b", "pam-1.5b"}


def status(plugins: Plugins, name: str) -> PluginStatus:
    (found,) = [status for status in plugins.statuses if status.name == name]
    return found


def task_names(plugins: Plugins) -> set[str]:
    return {task.name for group in plugins.manager.hook.pam_tasks() for task in group}


def test_what_is_built_in_comes_first_and_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAM_PLUGINS", "")
    loaded = Plugins()
    built_in = [status for status in loaded.statuses if status.source == "built in"]
    assert [status.name for status in built_in] == BUILTIN == [s.name for s in loaded.statuses][: len(BUILTIN)]
    assert all(status.loaded and status.error is None and status.hooks for status in built_in)
    assert task_names(loaded) == {"label", "explanation", "brief", "detailed", "text"}
    assert {info.name for group in loaded.manager.hook.pam_models() for info in group} == MODELS


def test_an_installed_plugin_is_found_with_its_hooks_and_where_it_is_from(install: Install) -> None:
    install("good", GOOD.format(task="extra"), "some-distribution")
    loaded = Plugins()
    assert status(loaded, "good") == PluginStatus("good", "some-distribution 1.0", True, ("pam_tasks",))
    assert "extra" in task_names(loaded)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (None, {"one", "two", "three"}),
        ("two", {"two"}),
        (" one , three ,", {"one", "three"}),
        ("", set()),
        (" ", set()),
        ("unheard-of", set()),
    ],
)
def test_pam_plugins_limits_the_installed_ones(
    install: Install, monkeypatch: pytest.MonkeyPatch, wanted: str | None, names: set[str]
) -> None:
    for name in ("one", "two", "three"):
        install(name, GOOD.format(task=name))
    if wanted is not None:
        monkeypatch.setenv("PAM_PLUGINS", wanted)
    loaded = Plugins()
    ours = [status for status in loaded.statuses if status.name in ("one", "two", "three")]
    assert {status.name for status in ours} == {"one", "two", "three"}, "those left out are reported all the same"
    assert {status.name for status in ours if status.loaded} == names
    assert all(status.error is None for status in ours)
    assert task_names(loaded) & {"one", "two", "three"} == names
    assert {status.name for status in loaded.statuses if status.source == "built in"} == set(BUILTIN)


def test_a_plugin_left_out_is_not_even_imported(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("bomb", "raise RuntimeError('imported')")
    monkeypatch.setenv("PAM_PLUGINS", "")
    assert status(Plugins(), "bomb") == PluginStatus("bomb", "test-bomb 1.0", False)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise RuntimeError('out of order')", "RuntimeError: out of order"),
        ("import no_such_package_anywhere", "ModuleNotFoundError: No module named 'no_such_package_anywhere'"),
        ("def (", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_plugin_that_does_not_import_is_named_and_the_rest_works(install: Install, code: str, error: str) -> None:
    install("broken", code)
    install("good", GOOD.format(task="extra"))
    loaded = Plugins()
    broken = status(loaded, "broken")
    assert not broken.loaded
    assert broken.hooks == ()
    assert broken.error is not None
    assert broken.error.startswith(error)
    assert status(loaded, "good").loaded
    assert "extra" in task_names(loaded)
    assert {info.name for group in loaded.manager.hook.pam_models() for info in group} == MODELS


def test_an_entry_point_without_its_module_is_named(install: Install, tmp_path: Path) -> None:
    module = install("gone", "")
    (tmp_path / "site" / f"{module}.py").unlink()
    error = status(Plugins(), "gone").error
    assert error is not None
    assert module in error


MISSPELT = """
from pam_plugins import hookimpl

@hookimpl
def pam_tasks():
    return []

@hookimpl{options}
def {name}():
    return []
"""


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pam_modells", ""),
        ("pma_models", ""),
        ("models", "(specname='pam_modells')"),
    ],
)
def test_a_misspelt_hook_is_named_and_nothing_of_the_plugin_stays(install: Install, name: str, options: str) -> None:
    install("misspelt", MISSPELT.format(name=name, options=options))
    loaded = Plugins()
    found = status(loaded, "misspelt")
    assert not found.loaded
    assert found.error is not None
    assert (name if not options else "pam_modells") in found.error
    assert not loaded.manager.has_plugin("misspelt")
    assert len(loaded.manager.hook.pam_tasks()) == 1, "only the built-in plugin is left"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pam_of_a_later_version", "(optionalhook=True)"),
        ("our_tasks", "(specname='pam_tasks')"),
        ("pam_our_tasks", "(specname='pam_tasks')"),
    ],
)
def test_what_pluggy_allows_is_not_called_misspelt(install: Install, name: str, options: str) -> None:
    install("fine", MISSPELT.format(name=name, options=options))
    found = status(Plugins(), "fine")
    assert found.error is None
    assert found.loaded


WRONG_ARGUMENT = """
from pam_core.types import Task
from pam_plugins import hookimpl

@hookimpl
def pam_sinks():
    return []

@hookimpl
def pam_perceived(perception, gadget):
    return None

@hookimpl
def pam_tasks():
    return [Task("from-a-failed-plugin", "must not be there")]
"""


def test_a_hook_with_a_wrong_argument_is_named_and_nothing_of_the_plugin_stays(install: Install) -> None:
    before = len(Plugins().manager.hook.pam_sinks())
    install("wrong", WRONG_ARGUMENT)
    loaded = Plugins()
    found = status(loaded, "wrong")
    assert not found.loaded
    assert found.error is not None
    assert "pam_perceived" in found.error
    assert "gadget" in found.error
    assert not loaded.manager.has_plugin("wrong")
    assert "from-a-failed-plugin" not in task_names(loaded)
    assert len(loaded.manager.hook.pam_sinks()) == before


def test_of_two_installed_plugins_with_one_name_the_second_is_refused(install: Install) -> None:
    install("twin", GOOD.format(task="first"), "test-a")
    install("twin", GOOD.format(task="second"), "test-b")
    loaded = Plugins()
    twins = [status for status in loaded.statuses if status.name == "twin"]
    assert sorted(status.loaded for status in twins) == [False, True]
    (refused,) = [status for status in twins if not status.loaded]
    assert refused.error is not None
    assert "already registered" in refused.error
    assert len(task_names(loaded) & {"first", "second"}) == 1


def test_an_installed_plugin_cannot_take_the_place_of_a_built_in_one(install: Install) -> None:
    install("lite", "")
    loaded = Plugins()
    assert [status.loaded for status in loaded.statuses if status.name == "lite"] == [True, False]
    assert {info.name for group in loaded.manager.hook.pam_models() for info in group} == MODELS


def test_registered_is_there_for_the_length_of_the_block(no_plugins: Plugins) -> None:
    with no_plugins.registered(FakePlugin(fake_info("visitor")), "guest"):
        assert status(no_plugins, "guest").loaded
        assert status(no_plugins, "guest").hooks == ("pam_models",)
        assert plugins.load_model("visitor").info.name == "visitor"
    assert no_plugins.statuses == []
    assert not no_plugins.manager.has_plugin("guest")
    with pytest.raises(plugins.NotFoundError):
        plugins.load_model("visitor")


def test_registered_cleans_up_after_an_error(no_plugins: Plugins) -> None:
    with pytest.raises(ZeroDivisionError), no_plugins.registered(FakePlugin(fake_info("visitor")), "guest"):
        raise ZeroDivisionError
    assert no_plugins.statuses == []
    assert plugins.model_infos() == {}


def test_registered_leaves_others_alone_where_the_name_is_taken(no_plugins: Plugins) -> None:
    first, second = FakePlugin(fake_info("first")), FakePlugin(fake_info("second"))
    with no_plugins.registered(first, "guest"):
        with pytest.raises(ValueError, match="already"), no_plugins.registered(second, "guest"):
            pytest.fail("a taken name was given away")
        with pytest.raises(ValueError, match="already"), no_plugins.registered(first, "another name"):
            pytest.fail("one plugin was registered twice")
        assert list(plugins.model_infos()) == ["first"]


def test_registered_refuses_a_misspelt_hook(no_plugins: Plugins) -> None:
    class Misspelt:
        @hookimpl
        def pam_percieved(self, perception: object) -> None: ...

    with pytest.raises(Exception, match="pam_percieved"), no_plugins.registered(Misspelt(), "guest"):
        pytest.fail("a misspelt hook was taken")
    assert no_plugins.statuses == []
    assert not no_plugins.manager.has_plugin("guest")


class Wrapping:
    """Puts the tasks of others into capitals."""

    @hookimpl(wrapper=True)
    def pam_tasks(self):  # type: ignore[no-untyped-def]
        results = yield
        return [[Task(task.name.upper(), task.description) for task in result] for result in results]


class TwoTasks:
    @hookimpl
    def pam_tasks(self) -> list[Task]:
        return [Task("one", "first"), Task("two", "second")]


class Failing:
    @hookimpl
    def pam_tasks(self):  # type: ignore[no-untyped-def]
        yield 1 / 0


def test_a_wrapper_wraps_the_calls_of_all_others(no_plugins: Plugins) -> None:
    class More:
        @hookimpl
        def pam_tasks(self) -> list[Task]:
            return [Task("three", "third")]

    with (
        no_plugins.registered(TwoTasks(), "two"),
        no_plugins.registered(Wrapping(), "wrapper"),
        no_plugins.registered(More(), "more"),
    ):
        assert list(plugins.tasks()) == ["ONE", "TWO", "THREE"]
        assert all(status.error is None for status in no_plugins.statuses)


def test_a_wrapper_disturbs_no_plugin_that_works_beside_one_that_fails(no_plugins: Plugins) -> None:
    with (
        no_plugins.registered(Failing(), "failing"),
        no_plugins.registered(Wrapping(), "wrapper"),
        no_plugins.registered(TwoTasks(), "two"),
    ):
        assert list(plugins.tasks()) == ["ONE", "TWO"]
        assert status(no_plugins, "failing").error == "pam_tasks raised ZeroDivisionError: division by zero"
        assert status(no_plugins, "wrapper").error is None


def test_a_wrapper_that_fails_is_the_one_reported(no_plugins: Plugins) -> None:
    class BadWrapper:
        @hookimpl(wrapper=True)
        def pam_tasks(self):  # type: ignore[no-untyped-def]
            yield
            raise KeyError("bad wrapper")

    with no_plugins.registered(TwoTasks(), "two"), no_plugins.registered(BadWrapper(), "wrapper"):
        assert plugins.tasks() == {}
        assert status(no_plugins, "two").error is None
        assert "bad wrapper" in str(status(no_plugins, "wrapper").error)


def test_a_hook_that_raises_is_logged_once_and_seen_in_the_status(
    no_plugins: Plugins, caplog: pytest.LogCaptureFixture
) -> None:
    with no_plugins.registered(Failing(), "guest"):
        assert no_plugins.call("pam_tasks") == no_plugins.call("pam_tasks") == []
        assert status(no_plugins, "guest").error == "pam_tasks raised ZeroDivisionError: division by zero"
    assert len(caplog.records) == 1


def test_the_doors_are_loaded_by_name_whatever_pam_plugins_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAM_PLUGINS", "")
    assert status(Plugins(), "fiftyone") == PluginStatus(
        "fiftyone", "a door", True, ("pam_commands", "pam_sinks", "pam_sources")
    )


def test_a_door_that_does_not_load_takes_nothing_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pam_plugins.plugins.DOORS", {"shut": "no_such_package.commands"})
    loaded = Plugins()
    assert "no_such_package" in str(status(loaded, "shut").error) and not status(loaded, "shut").loaded
    assert status(loaded, "lite").loaded


def test_the_command_line_of_the_doors_imports_no_host() -> None:
    code = (
        "import sys; from pam_plugins.cli import app; from pam_plugins.plugins import announce;"
        "announce('pam_commands', app=app);"
        "print([group.name for group in app.registered_groups], 'fiftyone' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['fiftyone'] False False"
