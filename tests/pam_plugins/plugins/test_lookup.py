"""From names to things: which one a name means, and what is said where there is none."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from pam_core.contracts import ModelInfo
from pam_core.engine.cache import shared_cache
from pam_core.errors import NotFoundError
from pam_core.types import Perception, Prompt, Task
from pam_plugins import hookimpl, perceive, plugins, release_model
from pam_plugins.plugins import Plugins
from tests.pam_plugins.plugins.fakes import FakePlugin, fake_info


def test_a_model_is_found_by_name(no_plugins: Plugins) -> None:
    with no_plugins.registered(FakePlugin(fake_info("a"), fake_info("b")), "fakes"):
        assert plugins.resolve_model("a").name == "a"
        assert plugins.resolve_model("b").name == "b"


def test_models_come_best_first(no_plugins: Plugins) -> None:
    infos = [fake_info("low", -1), fake_info("high", 7), fake_info("middle"), fake_info("away", 9, "buy a GPU")]
    with no_plugins.registered(FakePlugin(*infos), "fakes"):
        assert list(plugins.model_infos()) == ["away", "high", "middle", "low"]


def test_auto_is_the_best_that_is_ready_whichever_plugin_has_it(no_plugins: Plugins) -> None:
    first = FakePlugin(fake_info("low", 1), fake_info("away", 9, "buy a GPU"))
    second = FakePlugin(fake_info("high", 2))
    with no_plugins.registered(first, "first"), no_plugins.registered(second, "second"):
        assert plugins.resolve_model().name == plugins.resolve_model("auto").name == "high"
        assert plugins.load_model().info.name == "high"
    with no_plugins.registered(second, "second"), no_plugins.registered(first, "first"):
        assert plugins.resolve_model().name == "high"


def test_auto_of_equal_rank_is_the_plugin_registered_first(no_plugins: Plugins) -> None:
    with (
        no_plugins.registered(FakePlugin(fake_info("one")), "first"),
        no_plugins.registered(FakePlugin(fake_info("two")), "second"),
    ):
        assert plugins.resolve_model().name == "one"


@pytest.mark.parametrize("infos", [(), (fake_info("away", 1, "buy a GPU"),)])
def test_auto_without_a_model_that_is_ready_says_where_to_look(no_plugins: Plugins, infos: tuple) -> None:
    with (
        no_plugins.registered(FakePlugin(*infos), "fakes"),
        pytest.raises(NotFoundError, match=r"No model is ready here.*`pam models`"),
    ):
        plugins.resolve_model()


def test_a_model_that_cannot_be_loaded_here_says_what_to_do(no_plugins: Plugins) -> None:
    plugin = FakePlugin(fake_info("away", missing="download the weights"))
    with no_plugins.registered(plugin, "fakes"):
        for ask in (plugins.resolve_model, plugins.load_model):
            with pytest.raises(NotFoundError, match="'away' cannot be loaded here: download the weights"):
                ask("away")
    assert plugin.loads == []


def test_an_unknown_model_names_those_there_are(no_plugins: Plugins) -> None:
    with (
        no_plugins.registered(FakePlugin(fake_info("a"), fake_info("b")), "fakes"),
        pytest.raises(NotFoundError) as caught,
    ):
        plugins.load_model("c")
    assert "'c'" in str(caught.value)
    assert "a, b" in str(caught.value)
    assert "`pam models`" in str(caught.value)


@pytest.mark.parametrize(
    ("ask", "kind"),
    [
        (plugins.resolve_model, "model"),
        (plugins.proposer, "proposer"),
        (plugins.postprocessor, "post-processor"),
        (plugins.source, "kind of source"),
        (plugins.sink, "kind of sink"),
    ],
)
def test_an_unknown_name_says_what_kind_of_thing_it_was_and_where_to_look(no_plugins: Plugins, ask, kind) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(NotFoundError) as caught:
        ask("unheard-of")
    text = str(caught.value)
    assert text.startswith(f"No {kind} is called 'unheard-of'; there is none.")
    assert "`pam " in text


def test_a_model_is_loaded_once_for_each_device_however_it_is_spelled(
    no_plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    plugin = FakePlugin(fake_info("a", 1), fake_info("b"))
    with no_plugins.registered(plugin, "fakes"):
        first = plugins.load_model("a", "cuda")
        assert first.device == "cuda:0"  # type: ignore[attr-defined]
        assert plugins.load_model("a", "auto") is plugins.load_model("auto", "cuda:0") is first
        assert plugin.loads == ["a"]
        others = [plugins.load_model("b", "cuda"), plugins.load_model("a", "cuda:1"), plugins.load_model("a", "cpu")]
        assert plugin.loads == ["a", "b", "a", "a"]
        assert len({id(model) for model in (first, *others)}) == 4


def test_a_model_that_nobody_holds_is_gone_and_its_embeddings_too(no_plugins: Plugins) -> None:
    plugin = FakePlugin(fake_info("a"))
    shared_cache.clear()
    with no_plugins.registered(plugin, "fakes"):
        model = plugins.load_model("a")
        perceive(np.zeros((4, 6, 3), np.uint8), [Prompt.at(1, 1)], model=model)
        assert shared_cache.stats.entries == 1
        gone = weakref.ref(model)
        del model
        gc.collect()
        assert gone() is None
        assert shared_cache.stats.entries == 0
        again = plugins.load_model("a")
        assert plugin.loads == ["a", "a"]
        assert plugins.load_model("a") is again


def test_perceive_keeps_the_model_it_was_given_by_name_until_it_is_released(no_plugins: Plugins) -> None:
    plugin = FakePlugin(fake_info("a"))
    picture = np.zeros((4, 6, 3), np.uint8)
    with no_plugins.registered(plugin, "fakes"):
        for _ in range(2):
            perceive(picture, [Prompt.at(1, 1)], model="a")
        assert plugin.loads == ["a"]
        release_model()
        gc.collect()
        perceive(picture, [Prompt.at(1, 1)], model="a")
        assert plugin.loads == ["a", "a"]


def test_a_load_that_failed_is_tried_again(no_plugins: Plugins) -> None:
    class Moody(FakePlugin):
        def _load(self, info: ModelInfo, device: str, compile: bool):  # type: ignore[no-untyped-def]
            if not self.loads:
                self.loads.append("failed")
                raise OSError("the disk was asleep")
            return super()._load(info, device, compile)

    with no_plugins.registered(Moody(fake_info("a")), "fakes"):
        with pytest.raises(OSError, match="asleep"):
            plugins.load_model("a")
        assert plugins.load_model("a").info.name == "a"


def test_a_model_listed_without_a_loader_is_reported(no_plugins: Plugins) -> None:
    class Boaster:
        @hookimpl
        def pam_models(self):  # type: ignore[no-untyped-def]
            return [fake_info("hot air")]

    with (
        no_plugins.registered(Boaster(), "boaster"),
        pytest.raises(NotFoundError, match="'hot air' is listed without a way to load it"),
    ):
        plugins.load_model("hot air")


def test_of_two_models_with_one_name_the_one_listed_is_the_one_loaded(no_plugins: Plugins) -> None:
    first, second = FakePlugin(fake_info("same", 1)), FakePlugin(fake_info("same", 2))
    with no_plugins.registered(first, "first"), no_plugins.registered(second, "second"):
        assert plugins.load_model("same").info == plugins.resolve_model("same")


def test_tasks_come_in_order_and_the_first_of_a_name_stays(no_plugins: Plugins) -> None:
    class Tasks:
        def __init__(self, *tasks: Task) -> None:
            self.tasks = tasks

        @hookimpl
        def pam_tasks(self):  # type: ignore[no-untyped-def]
            return self.tasks

    with (
        no_plugins.registered(Tasks(Task("a", "first"), Task("b", "first")), "first"),
        no_plugins.registered(Tasks(Task("b", "second"), Task("c", "second")), "second"),
    ):
        found = plugins.tasks()
    assert [(name, task.description) for name, task in found.items()] == [
        ("a", "first"),
        ("b", "first"),
        ("c", "second"),
    ]


def test_perceive_tells_plugins_what_was_perceived(no_plugins: Plugins) -> None:
    class Observer:
        def __init__(self) -> None:
            self.seen: list[Perception] = []

        @hookimpl
        def pam_perceived(self, perception: Perception) -> None:
            self.seen.append(perception)

    observer = Observer()
    with (
        no_plugins.registered(FakePlugin(fake_info("a")), "fakes"),
        no_plugins.registered(observer, "observer"),
    ):
        perception = perceive(np.zeros((4, 6, 3), np.uint8), [Prompt.at(1, 1)], model="a")
    assert observer.seen == [perception]
    assert perception.regions[0].label == "a"


FAILING = [
    ("pam_models", lambda: plugins.load_model("real")),
    ("pam_tasks", plugins.tasks),
    ("pam_sinks", plugins.sinks),
    ("pam_perceived", lambda: perceive(np.zeros((4, 6, 3), np.uint8), [Prompt.at(1, 1)], model="real")),
]


@pytest.mark.parametrize(("hook", "ask"), FAILING, ids=[hook for hook, _ in FAILING])
def test_a_hook_that_raises_takes_nothing_else_down(no_plugins: Plugins, hook: str, ask) -> None:  # type: ignore[no-untyped-def]
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    plugin = type("Failing", (), {})()
    setattr(plugin, hook, hookimpl(fail))
    with (
        no_plugins.registered(FakePlugin(fake_info("real")), "fakes"),
        no_plugins.registered(plugin, "failing"),
    ):
        ask()
