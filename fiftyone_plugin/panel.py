"""The panel "Regions": a table of regions beside the pictures, to search, accept, edit and reject.

The state of a panel lives in the browser and comes with every event; nothing is kept here between two events.

    controls                       the query: field, search, review
    scope_key                      a hash of the samples that the rows are of
    page                           the page, from 0; `more` where another follows
    rows                           [sample id, label id, texts] of each row shown
    table                          what the table shows
    chosen                         the number of the chosen row, or -1
    edit                           {label, caption, ...} while the chosen row is edited, by attribute
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types

from fiftyone_plugin import feedback
from fiftyone_plugin.checks import FiftyOneError
from fiftyone_plugin.feedback import EDITABLE, REVIEWS, LabelRow, checked_text, find_rows, reviewable_fields
from fiftyone_plugin.mongo import is_generated, view_stages
from fiftyone_plugin.operators.form import Context, choose
from pam_core.types import Verdict

COLUMNS = ("Label", "Caption", "Score", "Review", "Model", "Seconds")
ACTIONS = {
    "accept": ("Accept", "check_circle"),
    "edit": ("Edit", "edit"),
    "reject": ("Reject", "cancel"),
    "open_sample": ("Open the sample", "visibility"),
}
"""What can be done with a row: the name of the method, its tooltip and its icon."""
TABLE_STYLE = {
    "minWidth": 400,
    "& td, & th": {"fontSize": "0.85rem", "padding": "4px 5px"},
    "& td:nth-of-type(2)": {"minWidth": 130},
    "& td .MuiIconButton-root": {"padding": "1px"},
}
"""Room for the caption, since a panel is often half a window."""
MAX_CELL = 200
"""Characters of a text that a cell shows."""
EDIT_LABELS = dict(zip(EDITABLE, ("Label", "Caption", "Label in Chinese", "Caption in Chinese"), strict=True))
REVIEW_LABELS = {name: name.capitalize() for name in REVIEWS} | {"all": "All regions", "open": "Not reviewed yet"}


def notifies(method: Callable[[Any, Context], None]) -> Callable[[Any, Context], None]:
    """An event's method that shows a FiftyOneError as a notification."""

    @functools.wraps(method)
    def event(panel: Any, ctx: Context) -> None:
        try:
            method(panel, ctx)
        except FiftyOneError as error:
            ctx.ops.notify(str(error), variant="error")

    return event


class RegionsPanel(foo.Panel):
    """The regions of the open sample, of the selected ones, or of the view."""

    @property
    def config(self) -> foo.PanelConfig:
        return foo.PanelConfig(
            name="regions_panel",
            label="Regions",
            icon="/assets/regions.svg",
            surfaces="grid modal",
            help_markdown="The regions and their texts. A row selects its label in the viewer.",
        )

    def on_load(self, ctx: Context) -> None:
        self._refresh(ctx, page=0)

    def on_change_view(self, ctx: Context) -> None:
        """Other samples. The App also sends this, several times, when nothing but this panel's state has changed."""
        if _scope_key(ctx) != ctx.panel.get_state("scope_key"):
            self._refresh(ctx, page=0)

    on_change_dataset = on_change_view
    on_change_group_slice = on_change_view
    on_change_current_sample = on_change_view
    on_change_selected = on_change_view

    def on_change_selected_labels(self, ctx: Context) -> None:
        """Choose a label clicked in the viewer, unless texts are being edited: they would be lost."""
        selected = [label["label_id"] for label in ctx.selected_labels or ()]
        rows = ctx.panel.get_state("rows") or []
        at = next((number for number, row in enumerate(rows) if row[1] in selected[-1:]), -1)
        if at not in (-1, ctx.panel.get_state("chosen")) and not ctx.panel.get_state("edit"):
            self._refresh(ctx, chosen=selected[-1])

    def search(self, ctx: Context) -> None:
        """Another field, search or review state."""
        self._refresh(ctx, page=0)

    def next_page(self, ctx: Context) -> None:
        self._refresh(ctx, page=_page(ctx) + 1)

    def previous_page(self, ctx: Context) -> None:
        self._refresh(ctx, page=max(0, _page(ctx) - 1))

    @notifies
    def choose(self, ctx: Context) -> None:
        """Select the clicked row's label in the viewer."""
        sample_id, label_id, _ = _row_of(ctx)
        label = {"label_id": label_id, "sample_id": sample_id, "field": ctx.panel.get_state("controls.field")}
        ctx.ops.set_selected_labels([label])
        self._refresh(ctx, chosen=label_id)

    @notifies
    def open_sample(self, ctx: Context) -> None:
        """Open the row's sample with its label selected."""
        self.choose(ctx)
        ctx.ops.open_sample(id=_row_of(ctx)[0])

    @notifies
    def accept(self, ctx: Context) -> None:
        self._review(ctx, Verdict.ACCEPTED)

    @notifies
    def reject(self, ctx: Context) -> None:
        self._review(ctx, Verdict.REJECTED)

    @notifies
    def edit(self, ctx: Context) -> None:
        """Open the row's texts for editing."""
        _, label_id, texts = _row_of(ctx)
        shown = {name: texts.get(name, "") for name in EDITABLE if name in ("label", "caption") or name in texts}
        self._refresh(ctx, chosen=label_id, edit=shown)

    @notifies
    def save(self, ctx: Context) -> None:
        """Write the texts as edited."""
        texts = _row_of(ctx)[2]
        edited = {name: text for name, text in (ctx.panel.get_state("edit") or {}).items() if isinstance(text, str)}
        changed = {name: text for name, text in edited.items() if text.strip() != texts.get(name, "").strip()}
        if not changed:
            raise FiftyOneError("Got the same words; wanted a change. Use Accept where they are right.")
        for name, text in changed.items():  # before the rows are read again, so that the form stays as it is
            checked_text(name, text)
        self._review(ctx, Verdict.EDITED, changed)

    def cancel(self, ctx: Context) -> None:
        self._refresh(ctx)

    def _review(self, ctx: Context, verdict: Verdict, texts: dict[str, str] | None = None) -> None:
        sample_id, label_id, _ = _row_of(ctx)
        try:
            feedback.review(ctx.dataset, ctx.panel.get_state("controls.field"), sample_id, label_id, verdict, texts)
        finally:  # a label that was deleted has to go from the table too
            self._refresh(ctx, chosen=label_id)
        ctx.ops.reload_samples()

    def _refresh(
        self, ctx: Context, page: int | None = None, chosen: str = "", edit: dict[str, str] | None = None
    ) -> None:
        """Read the rows again and show them; `chosen` is a label's id."""
        fields = reviewable_fields(ctx.dataset)
        field = ctx.panel.get_state("controls.field")
        field = field if field in fields else next(iter(fields), None)
        page = _page(ctx) if page is None else page
        state = ctx.panel.get_state("controls.review")
        rows: list[LabelRow] = []
        more = False
        samples, scope = _scope(ctx)
        if field is not None and not is_generated(ctx.view):
            search = str(ctx.panel.get_state("controls.search") or "")
            state = state if state in REVIEWS else "all"
            rows, more = find_rows(ctx.view, field, search, state, samples, page)
        at = next((number for number, row in enumerate(rows) if row.label_id == chosen), -1)
        ctx.panel.set_state(
            {
                "controls.field": field,
                "scope_key": _scope_key(ctx),
                "page": page,
                "more": more,
                "scope": scope,
                "rows": [[row.sample_id, row.label_id, row.texts] for row in rows],
                "chosen": at,
                "edit": edit if at >= 0 else None,
                # Not in the panel's data: the App lays data over the state row by row, and rows that are gone stay.
                "table": {
                    "columns": [name.lower() for name in COLUMNS],
                    "rows": [_cells(row) for row in rows],
                    "selectedRows": [at] if at >= 0 else [],
                },
            }
        )

    def render(self, ctx: Context) -> types.Property:
        panel = types.Object()
        fields = reviewable_fields(ctx.dataset)
        if is_generated(ctx.view):
            panel.md(
                "Patches, clips and frames are not shown here. Go back to the view of samples.", name="generated"
            )
        elif not fields:
            operators = "The operators **Perceive regions** and **Caption existing regions** make one."
            panel.md(f"There is no field of regions yet. {operators}", name="nothing")
        else:
            self._controls(panel, fields)
            panel.md(_about(ctx), name="about")
            if ctx.panel.get_state("edit"):
                self._form(panel, ctx)
            if ctx.panel.get_state("rows"):
                self._table(panel)
            else:
                panel.md("No region matches.", name="none")
            self._pages(panel, ctx)
        return types.Property(panel, view=types.GridView(orientation="vertical", gap=1, pad=2))

    def _controls(self, panel: types.Object, fields: list[str]) -> None:
        row = panel.h_stack("controls", gap=1, align_y="end")
        choose(row, "field", {name: name for name in fields}, label="Field", on_change=self.search)
        choose(row, "review", REVIEW_LABELS, label="Show", on_change=self.search)
        row.str("search", label="Search labels, captions and explanations")
        row.btn("search_button", label="Search", variant="outlined", on_click=self.search)

    def _form(self, panel: types.Object, ctx: Context) -> None:
        form = panel.v_stack("edit", gap=1)
        for name in ctx.panel.get_state("edit"):
            form.str(name, label=EDIT_LABELS[name], view=types.TextFieldView(multiline=name.startswith("caption")))
        buttons = panel.h_stack("buttons", gap=1)
        buttons.btn("save", label="Save", variant="contained", on_click=self.save)
        buttons.btn("cancel", label="Cancel", on_click=self.cancel)

    def _table(self, panel: types.Object) -> None:
        table = types.TableView(
            on_click_row=self.choose, max_inline_actions=len(ACTIONS), componentsProps={"table": {"sx": TABLE_STYLE}}
        )
        for name in COLUMNS:
            table.add_column(name.lower(), label=name)
        for name, (tooltip, icon) in ACTIONS.items():
            table.add_row_action(name, getattr(self, name), icon=icon, tooltip=tooltip)
        panel.list("table", types.Object(), view=table)

    def _pages(self, panel: types.Object, ctx: Context) -> None:
        page, more = _page(ctx), bool(ctx.panel.get_state("more"))
        if page or more:
            pages = panel.h_stack("pages", gap=1)
            size = feedback.PAGE
            pages.btn("previous", label=f"Previous {size}", disabled=not page, on_click=self.previous_page)
            pages.btn("next", label=f"Next {size}", disabled=not more, on_click=self.next_page)


def _page(ctx: Context) -> int:
    page = ctx.panel.get_state("page")
    return page if isinstance(page, int) and page > 0 else 0


def _row_of(ctx: Context) -> list[Any]:
    """The sample's id, the label's id and the texts of an event's row, or of the chosen one. Raises FiftyOneError."""
    rows: list[list[Any]] = ctx.panel.get_state("rows") or []
    number = ctx.params.get("row", ctx.panel.get_state("chosen", -1))
    if not isinstance(number, int) or not 0 <= number < len(rows):
        raise FiftyOneError("No region is chosen; click a row of the table first.")
    return rows[number]


def _scope(ctx: Context) -> tuple[list[str] | None, str]:
    """The ids of the samples whose regions are shown, and their name: the open one, the selected, or the view."""
    if ctx.current_sample:
        return [ctx.current_sample], "this sample"
    if ctx.selected:
        count = len(ctx.selected)
        return list(ctx.selected), "the selected sample" if count == 1 else f"{count} selected samples"
    return None, "the view"


def _scope_key(ctx: Context) -> str:
    """A hash of the samples whose regions are shown."""
    key = json.dumps([ctx.dataset.name, view_stages(ctx.view), _scope(ctx)[0]], default=str)
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def _cells(row: LabelRow) -> list[str]:
    score, seconds = ("" if value is None else f"{value:.2f}" for value in (row.confidence, row.seconds))
    label, caption = (_both_languages(row.texts, name) for name in ("label", "caption"))
    return [label, caption, score, row.review, row.model, seconds]


def _both_languages(texts: dict[str, str], name: str) -> str:
    """A text in English and in Chinese, where it has them."""
    text = " / ".join(filter(None, (texts.get(name), texts.get(f"{name}_zh"))))
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"


def _about(ctx: Context) -> str:
    """Which rows are shown, and the run that made them."""
    count, first = len(ctx.panel.get_state("rows") or []), _page(ctx) * feedback.PAGE + 1
    scope = ctx.panel.get_state("scope")
    shown = f"Regions {first} to {first + count - 1} of {scope}." if count else ""
    return f"{shown} {_run_of(ctx.dataset, ctx.panel.get_state('controls.field'))}".strip()


def _run_of(dataset: fo.Dataset, field: str) -> str:
    """The model and the time of the run that made a field."""
    runs = dataset.list_runs()
    key = next((key for key in (f"pam_{field}", f"pam_{field}_captions") if key in runs), None)
    if key is None:
        return ""
    model, results = dataset.get_run_info(key).config.model, dataset.load_run_results(key)
    if results is None or not results.perceived:
        return f"Model: {model}."
    failed = f", {results.failed} failed" if results.failed else ""
    return f"Model: {model}; the last run: {results.perceived} pictures in {results.seconds:.0f} s{failed}."
