"""The panel's events, called as the App calls them, on a real database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.factories import FakePlugin
from tests.fiftyone_plugin.conftest import URI, MakeDataset
from tests.fiftyone_plugin.test_feedback import labels, perceive

PANEL = f"{URI}/regions_panel"


class App:
    """What the App does with a panel: keeps its state, sends events, shows notices."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.state: dict[str, Any] = {}
        self.request: dict[str, Any] = {}
        self.notices: list[str] = []
        self.triggered: dict[str, Any] = {}
        self.shown: dict[str, Any] = {}

    def send(self, method: str, **params: Any) -> None:
        import fiftyone.operators as foo
        import pydash

        context = {
            "dataset": self.dataset,
            **self.request,
            "params": {"panel_id": "p", "panel_state": self.state, "__method__": method, **params},
        }
        result = foo.execute_operator(PANEL, context)
        assert result.error is None, result.error
        self.triggered = {}
        for asked in result.executor.to_json()["requests"]:
            name, given = asked["operator_uri"].split("/")[-1], asked["params"]
            self.triggered[name] = given
            assert name != "patch_panel_data", "the App merges data into the state: rows that are gone stay"
            if name == "patch_panel_state":
                for path, value in given["state"].items():
                    pydash.set_(self.state, path, value)
            if name == "notify":
                self.notices.append(given["message"])
            if name == "show_panel_output":
                self.shown = given["output"]["type"]["properties"]

    def look(self, **controls: Any) -> None:
        self.state.setdefault("controls", {}).update(controls)
        self.send("search")

    def column(self, name: str) -> list[str]:
        table = self.state["table"]
        return [row[table["columns"].index(name)] for row in table["rows"]]


@pytest.fixture
def app(fake: FakePlugin, make_dataset: MakeDataset) -> App:
    """The panel loaded on two samples of three regions: red, green and blue."""
    found = App(perceive(make_dataset(2)))
    found.send("on_load")
    return found


def test_the_regions_of_the_view_are_shown_with_what_the_model_said(app: App) -> None:
    assert app.column("label") == ["red / 红色", "green / 绿色", "blue / 蓝色"] * 2
    own = labels(app.dataset)[0]
    assert app.column("caption")[0] == f"{own['caption']} / {own['caption_zh']}"
    assert app.column("model") == ["fake 1"] * 6
    assert all(float(seconds) >= 0 for seconds in app.column("seconds"))
    assert app.column("review") == [""] * 6
    about = app.shown["about"]["default"]
    assert "Regions 1 to 6 of the view" in about and "Model: fake 1" in about and "2 pictures in" in about
    assert "mask" not in str(app.state)
    assert "pages" not in app.shown


def test_the_open_sample_and_selected_samples_narrow_it(app: App) -> None:
    first, second = app.dataset.values("id")
    app.request = {"current_sample": second}
    app.send("on_change_current_sample")
    assert {row[0] for row in app.state["rows"]} == {second}
    assert "of this sample" in app.shown["about"]["default"]
    app.request = {"selected": [first]}
    app.send("on_change_selected")
    assert {row[0] for row in app.state["rows"]} == {first}
    assert "the selected sample" in app.shown["about"]["default"]
    app.request = {"view": app.dataset.skip(1)}
    app.send("on_change_view")
    assert {row[0] for row in app.state["rows"]} == {second}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("red", 2),
        ("RED", 2),
        ("绿", 2),
        ("  blue ", 2),
        ("", 6),
        ("nowhere", 0),
        (".*", 0),
        ("(", 0),
        ("a\0b\ud800", 0),
        ("$where", 0),
        ("x" * 100_000, 0),
    ],
)
def test_search_finds_words_in_both_languages_and_takes_them_as_they_are(app: App, words: str, found: int) -> None:
    app.look(search=words)
    assert len(app.column("label")) == found
    assert ("none" in app.shown) == (found == 0)


def test_search_looks_in_explanations_and_captions_too(app: App) -> None:
    sample = app.dataset.first()
    sample["regions"].detections[1]["explanation"] = "Grown on a (very) old TREE."
    sample["regions"].detections[2]["caption"] = "Ein Baum im ÄRGER."
    sample.save()
    app.dataset.add_dynamic_sample_fields()
    app.look(search="(very) old tree")
    assert app.column("label") == ["green / 绿色"]
    app.look(search="ärger")
    assert app.column("label") == ["blue / 蓝色"]


def test_a_click_on_a_row_selects_its_label_in_the_viewer(app: App) -> None:
    app.send("choose", row=4)
    sample_id, label_id, _ = app.state["rows"][4]
    wanted = {"label_id": label_id, "sample_id": sample_id, "field": "regions"}
    assert app.triggered["set_selected_labels"] == {"labels": [wanted]}
    assert app.state["table"]["selectedRows"] == [4]
    app.send("open_sample", row=0)
    assert app.triggered["open_sample"]["id"] == app.dataset.first().id
    assert app.triggered["set_selected_labels"]["labels"][0]["label_id"] == app.state["rows"][0][1]


def test_a_label_clicked_in_the_viewer_is_chosen(app: App) -> None:
    app.request = {"selected_labels": [{"label_id": app.state["rows"][2][1], "field": "regions"}]}
    app.send("on_change_selected_labels")
    assert app.state["table"]["selectedRows"] == [2]
    app.request = {"selected_labels": []}
    app.send("on_change_selected_labels")
    assert app.notices == []
    app.send("edit", row=2)
    app.request = {"selected_labels": [{"label_id": app.state["rows"][3][1], "field": "regions"}]}
    app.send("on_change_selected_labels")
    assert "edit" in app.shown, "what was typed would be lost"


def test_accept_and_reject_write_tags_and_the_table_shows_them(app: App) -> None:
    app.send("accept", row=0)
    app.send("reject", row=1)
    assert "reload_samples" in app.triggered
    assert app.column("review") == ["accepted", "rejected", "", "", "", ""]
    assert [label.tags for label in labels(app.dataset)] == [["accepted"], ["rejected"], []]
    app.look(review="rejected")
    assert app.column("label") == ["green / 绿色"]
    app.look(review="open")
    assert len(app.state["rows"]) == 4
    app.look(review="accepted", search="green")
    assert app.state["rows"] == []
    app.look(review="no such state", search="")
    assert len(app.state["rows"]) == 6


def test_texts_are_edited_in_the_panel(app: App) -> None:
    own = labels(app.dataset)[2]
    app.send("edit", row=2)
    assert list(app.shown["edit"]["type"]["properties"]) == ["label", "caption", "label_zh", "caption_zh"]
    assert app.state["edit"]["caption"] == own["caption"]
    app.state["edit"]["caption"] = "A blue square."
    app.send("save")
    assert "edit" not in app.shown
    found = labels(app.dataset)[2]
    assert (found["caption"], found["original_caption"], found.tags) == ("A blue square.", own["caption"], ["edited"])
    assert found.label == own.label and found.get_attribute_value("original_label", None) is None
    assert app.column("review")[2] == "edited"


def test_an_edit_that_cannot_be_saved_is_said_and_stays_open(app: App) -> None:
    app.send("edit", row=2)
    app.send("save")
    assert "same words" in app.notices[-1] and "edit" in app.shown
    app.state["edit"]["label"] = "   "
    app.send("save")
    assert "empty label" in app.notices[-1] and app.state["edit"]["label"] == "   "
    app.send("cancel")
    assert "edit" not in app.shown
    assert labels(app.dataset)[2].tags == []


def test_an_event_that_changes_nothing_leaves_page_choice_and_words_alone(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The App sends several after each change of the panel's own state."""
    from fiftyone_plugin import feedback

    monkeypatch.setattr(feedback, "PAGE", 4)
    app.send("on_load")
    app.send("next_page")
    app.send("edit", row=1)
    app.state["edit"]["label"] = "being typed"
    for event in ("on_change_view", "on_change_dataset", "on_change_selected", "on_change_current_sample"):
        app.send(event)
    assert app.state["page"] == 1 and app.state["edit"]["label"] == "being typed" and "edit" in app.shown
    assert app.state["table"]["selectedRows"] == [1]
    app.request = {"view": app.dataset.limit(1)}
    app.send("on_change_view")
    assert app.state["page"] == 0 and "edit" not in app.shown


@pytest.mark.parametrize("row", [None, -1, 6, "0", 1.5])
def test_an_event_without_a_row_is_said(app: App, row: Any) -> None:
    app.send("accept", row=row)
    assert "No region is chosen" in app.notices[-1]


def test_a_label_that_went_meanwhile_is_said_and_leaves_the_table(app: App) -> None:
    sample = app.dataset.first()
    sample["regions"].detections.pop(0)
    sample.save()
    app.send("accept", row=0)
    assert "no longer there" in app.notices[-1]
    assert len(app.state["rows"]) == 5


def test_there_is_a_page_of_rows_at_a_time(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    from fiftyone_plugin import feedback

    monkeypatch.setattr(feedback, "PAGE", 4)
    app.send("on_load")
    assert len(app.state["rows"]) == 4 and app.state["more"]
    app.send("next_page")
    assert app.column("label") == ["green / 绿色", "blue / 蓝色"] and not app.state["more"]
    assert "Regions 5 to 6" in app.shown["about"]["default"]
    app.send("reject", row=1)
    assert app.column("review") == ["", "rejected"]
    app.send("previous_page")
    app.send("previous_page")
    assert app.state["page"] == 0 and len(app.state["rows"]) == 4
    app.state["page"] = 7
    app.send("cancel")
    assert app.state["rows"] == [] and "none" in app.shown


def test_the_field_of_results_can_be_chosen(app: App) -> None:
    perceive(app.dataset, field="outlines", geometry="polyline")
    app.send("on_load")
    fields = app.shown["controls"]["type"]["properties"]["field"]["type"]["values"]
    assert fields == ["regions", "outlines"]
    app.look(field="outlines")
    app.send("accept", row=0)
    assert labels(app.dataset, "outlines")[0].tags == ["accepted"]
    assert labels(app.dataset)[0].tags == []
    app.look(field="boxes")
    assert app.state["controls"]["field"] == "regions"


def test_no_field_of_regions_is_said(make_dataset: MakeDataset) -> None:
    app = App(make_dataset(1))
    app.send("on_load")
    assert "Perceive regions" in app.shown["nothing"]["default"]
    app.send("accept", row=0)
    assert "No region is chosen" in app.notices[-1]


def test_a_view_of_patches_is_said(app: App) -> None:
    app.request = {"view": app.dataset.to_patches("regions")}
    app.send("on_change_view")
    assert "Go back to the view of samples" in app.shown["generated"]["default"]


def test_the_slices_of_a_group_are_all_shown(fake: FakePlugin, make_dataset: MakeDataset) -> None:
    import fiftyone as fo

    flat = perceive(make_dataset(2))
    dataset = make_dataset(0)
    dataset.add_group_field("group", default="left")
    group = fo.Group()
    samples = []
    for sample, name in zip(flat, ("left", "right"), strict=True):
        copy = sample.copy()
        copy["group"] = group.element(name)
        samples.append(copy)
    dataset.add_samples(samples)
    dataset.add_dynamic_sample_fields()
    app = App(dataset)
    app.send("on_load")
    assert len(app.state["rows"]) == 6
    app.send("accept", row=5)
    assert dataset.select_group_slices("right").count_label_tags() == {"accepted": 1}


def test_masks_stay_in_the_database(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes over the wire is what the table shows: the same rows with large masks are not larger."""
    from fiftyone_plugin import feedback

    seen: list[Any] = []
    own: Callable[[Any], Any] = feedback._row
    monkeypatch.setattr(feedback, "_row", lambda found: (seen.append(found), own(found))[1])
    app.send("on_load")
    assert len(seen) == 6
    assert not any(isinstance(value, bytes) for found in seen for value in found["label"].values())
    assert not any("bounding_box" in found["label"] for found in seen)
