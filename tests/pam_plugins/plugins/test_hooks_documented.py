"""docs/hooks.md and pam_plugins/hookspecs.py say the same, and the examples in the document work."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pluggy
import pytest
import typer
from typer.testing import CliRunner

from pam_core.contracts import ModelInfo, PostProcessor, Proposer, RegionModel
from pam_core.errors import DatasetError
from pam_core.types import Feedback, Perception, Prompt, Task, Verdict
from pam_plugins import hookspecs, perceive, plugins
from pam_plugins.datasets.contracts import Job, Result, SinkFormat, SourceFormat
from pam_plugins.plugins import Plugins
from tests.pam_plugins.plugins.fakes import ROOT, FakeModel, FakePlugin, fake_info

DOCUMENT = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")
PACKAGES = {"pam_core", "pam_plugins", "pam_colour_blob"}
HEADING = re.compile(r"^### `?(pam_\w+)\(([^)]*)\)`?$", re.MULTILINE)
CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Section:
    hook: str
    arguments: tuple[str, ...]
    text: str

    @property
    def examples(self) -> list[str]:
        return CODE.findall(self.text)


def read_sections(document: str) -> list[Section]:
    """The sections that describe a hook, each up to the next heading."""
    found = []
    for match in HEADING.finditer(document):
        rest = document[match.end() :]
        text = rest[: end.start()] if (end := re.search(r"^##+ ", rest, re.MULTILINE)) else rest
        arguments = tuple(argument.strip() for argument in match[2].split(",") if argument.strip())
        found.append(Section(match[1], arguments, text))
    return found


def specified() -> dict[str, tuple[str, ...]]:
    """The hooks and their arguments, as pluggy sees them."""
    manager = pluggy.PluginManager("pam")
    manager.add_hookspecs(hookspecs)
    names = [name for name in vars(hookspecs) if manager.parse_hookspec_opts(hookspecs, name) is not None]
    return {name: tuple(inspect.signature(getattr(hookspecs, name)).parameters) for name in names}


SECTIONS = {section.hook: section for section in read_sections(DOCUMENT)}
EXAMPLES = [(section.hook, example) for section in SECTIONS.values() for example in section.examples]


def line_of(code: str) -> int:
    return DOCUMENT[: DOCUMENT.index(code)].count("\n") + 1


def differences(document: str) -> list[str]:
    """What is wrong with a document about the hooks; empty where nothing is."""
    hooks, sections = specified(), read_sections(document)
    described = [section.hook for section in sections]
    wrong = [f"{hook} is not described under a heading `### {hook}(...)`" for hook in hooks if hook not in described]
    wrong += [f"{hook} is described twice" for hook in set(described) if described.count(hook) > 1]
    mentioned = set(re.findall(r"\bpam_[a-z_]*[a-z]\b", document)) - PACKAGES
    wrong += [f"{name} is mentioned and is no hook" for name in sorted(mentioned - set(hooks))]
    for section in sections:
        wanted = hooks.get(section.hook, section.arguments)
        if section.arguments != wanted:
            wrong.append(f"{section.hook} is described with {section.arguments}; it has {wanted}")
        if not section.examples:
            wrong.append(f"{section.hook} has no example")
    return wrong


def test_there_are_hooks_to_describe() -> None:
    assert len(specified()) == 9
    assert specified()["pam_feedback"] == ("feedback",)


def test_the_document_describes_the_hooks_there_are() -> None:
    assert differences(DOCUMENT) == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("### pam_tasks()", "### tasks", "pam_tasks is not described"),
        ("### pam_feedback(feedback)", "### pam_feedback(verdict)", "pam_feedback is described with"),
        ("### pam_tasks()", "### pam_frames(frame)\n\n### pam_tasks()", "pam_frames is mentioned and is no hook"),
        ("### pam_tasks()", "See `pam_percieved`.\n\n### pam_tasks()", "pam_percieved is mentioned and is no hook"),
        ("### pam_tasks()", "### pam_tasks()\n\n### pam_tasks()", "pam_tasks is described twice"),
        ("```python", "```", "pam_tasks has no example"),
    ],
)
def test_a_document_that_is_wrong_is_found_out(old: str, new: str, complaint: str) -> None:
    assert old in DOCUMENT
    assert complaint in "\n".join(differences(DOCUMENT.replace(old, new)))


@pytest.mark.parametrize("code", CODE.findall(DOCUMENT), ids=lambda code: f"line-{line_of(code)}")
def test_every_example_compiles(code: str) -> None:
    compile(code, "docs/hooks.md", "exec")


@pytest.fixture
def run_code() -> Iterator[Any]:
    """`run_code(text)` runs an example as a module of its own and returns it."""
    name = "an_example_of_the_document"
    module = ModuleType(name)
    sys.modules[name] = module

    def run(code: str) -> ModuleType:
        exec(compile(code, "docs/hooks.md", "exec"), vars(module))
        return module

    yield run
    del sys.modules[name]


@pytest.mark.parametrize(("hook", "code"), EXAMPLES, ids=[hook for hook, _ in EXAMPLES])
def test_the_example_of_a_hook_is_a_plugin_with_that_hook(
    hook: str, code: str, run_code: Any, no_plugins: Plugins
) -> None:
    with no_plugins.registered(run_code(code), "example"):
        assert no_plugins.statuses[-1].hooks == (hook,)


def example_of(hook: str) -> str:
    (code,) = SECTIONS[hook].examples
    return code


@pytest.mark.parametrize(
    ("hook", "kind"),
    [
        ("pam_models", ModelInfo),
        ("pam_tasks", Task),
        ("pam_proposers", Proposer),
        ("pam_postprocessors", PostProcessor),
        ("pam_sources", SourceFormat),
        ("pam_sinks", SinkFormat),
    ],
)
def test_examples_that_list_things_list_the_right_things(hook: str, kind: type, run_code: Any) -> None:
    things: Sequence[object] = getattr(run_code(example_of(hook)), hook)()
    assert things
    assert all(isinstance(thing, kind) for thing in things)


@pytest.fixture
def perception() -> Perception:
    model = FakeModel(fake_info("Fake"), "cpu")
    picture = np.zeros((4, 6, 3), np.uint8)
    return perceive(picture, [Prompt.at(1, 1)], model=model, name="a.png")


def test_the_example_of_pam_proposers_proposes(run_code: Any, no_plugins: Plugins) -> None:
    fakes = FakePlugin(fake_info("fake"))
    with no_plugins.registered(fakes, "fakes"):
        (proposer,) = run_code(example_of("pam_proposers")).pam_proposers()
        model = plugins.load_model("fake")
        (region,) = proposer.propose(model, model.embed([np.zeros((4, 6, 3), np.uint8)])[0])
    assert region.prompt == Prompt.at(3, 2)


def test_the_example_of_pam_postprocessors_processes(run_code: Any, perception: Perception) -> None:
    (step,) = run_code(example_of("pam_postprocessors")).pam_postprocessors()
    assert [region.label for region in perception.regions] == ["Fake"]
    assert [region.label for region in step.process(perception).regions] == ["fake"]


def test_the_example_of_pam_sinks_writes(run_code: Any, perception: Perception, tmp_path: Path) -> None:
    (format,) = run_code(example_of("pam_sinks")).pam_sinks()
    sink = format.open(str(tmp_path / "new"))
    sink.write([Result(Job(Path("a.png")), perception)])
    sink.close()
    assert (tmp_path / "new" / "labels.txt").read_text(encoding="utf-8") == "a.png: Fake\n"
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="cannot be written"):
        format.open(str(tmp_path / "file"))


def test_the_example_of_pam_sources_is_a_source(run_code: Any, tmp_path: Path) -> None:
    (format,) = run_code(example_of("pam_sources")).pam_sources()
    with pytest.raises(DatasetError, match=r"none\.txt: No such file"):
        format.open(str(tmp_path / "none.txt"))
    (tmp_path / "list.txt").write_text("a.png\nb.png\n", encoding="utf-8")
    source = format.open(str(tmp_path / "list.txt"))
    assert len(source) == 2
    assert [job.id for job in source.jobs()] == ["a.png", "b.png"]


def test_the_example_of_pam_perceived_tells(
    run_code: Any, perception: Perception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        run_code(example_of("pam_perceived")).pam_perceived(perception)
    assert caplog.messages == ["a.png: 1 regions"]


def test_the_example_of_pam_feedback_writes(
    run_code: Any, perception: Perception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    module = run_code(example_of("pam_feedback"))
    module.pam_feedback(Feedback("a.png", perception.regions[0], Verdict.ACCEPTED))
    row = json.loads((tmp_path / "feedback.jsonl").read_text(encoding="utf-8"))
    assert (row["image"], row["verdict"], row["region"]["area"]) == ("a.png", "accepted", 24)


def test_the_example_of_pam_commands_adds_a_command(run_code: Any, perception: Perception, tmp_path: Path) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)
    run_code(example_of("pam_commands")).pam_commands(app)
    (tmp_path / "results.jsonl").write_text(perception.to_line() * 3, encoding="utf-8")
    done = CliRunner().invoke(app, ["count", str(tmp_path / "results.jsonl")])
    assert done.exit_code == 0, done.output
    assert done.output == "3\n"


def example_under(heading: str) -> str:
    """The first Python example after a heading of the second level."""
    found = CODE.search(DOCUMENT.split(f"\n## {heading}\n", 1)[1])
    assert found is not None
    return found[1]


def test_the_whole_plugin_perceives(run_code: Any, no_plugins: Plugins) -> None:
    with no_plugins.registered(run_code(example_under("A whole plugin")), "whole-picture"):
        model = plugins.load_model("whole-picture")
        found = perceive(np.zeros((4, 6, 3), np.uint8), [Prompt.at(5, 3)], model="whole-picture")
    assert isinstance(model, RegionModel)
    (region,) = found.regions
    assert (region.box, region.label) == ((0, 0, 6, 4), "picture")


def test_a_program_adds_a_plugin_as_described(run_code: Any, no_plugins: Plugins) -> None:
    run_code(example_under("Name it and install it"))
    assert no_plugins.statuses == []
    assert plugins.tasks() == {}


def test_the_names_said_to_be_built_in_are() -> None:
    from pam_plugins.plugins import BUILTIN_PLUGINS

    names = ", ".join(f"`{module.rsplit('.', 1)[1]}`" for module in BUILTIN_PLUGINS[:-1])
    last = BUILTIN_PLUGINS[-1].rsplit(".", 1)[1]
    assert f"{names} and `{last}` are built in" in DOCUMENT
