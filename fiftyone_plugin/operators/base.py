"""The operator that runs a request on a view: its form, its execution with progress, and the call from Python."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import fiftyone as fo
import fiftyone.core.utils as fou
import fiftyone.operators as foo
from fiftyone.operators import types

from fiftyone_plugin.checks import FiftyOneError
from fiftyone_plugin.mongo import SampleCollection
from fiftyone_plugin.operators.form import FRAMES, Context, as_list, choose_model, chosen_field, notice
from fiftyone_plugin.run import DatasetRun, RunProgress
from pam_core.errors import MissingExtraError, NotFoundError, UnsupportedError

REPORT_SECONDS = 0.5
"""The time between two reports of progress."""
ADVICE = (
    "Execute shows progress here and stops with the App. Schedule runs in the background, where `fiftyone delegated "
    "launch` is running."
)
MISUSE = (FiftyOneError, UnsupportedError, NotFoundError, MissingExtraError)
SUMMARY = ("done", "perceived", "regions", "frames", "tracks", "events", "resumed", "skipped", "failed", "faults")
"""The counts of a run that the App shows, where they are not 0."""
AnyRun = DatasetRun[Any, Any]
Params = Mapping[str, Any]
LabelIds = tuple[str, ...] | None
Steps = TypeVar("Steps", bound=RunProgress)


class LabelledOperator(foo.Operator, ABC):
    """An operator with a name, a label and a description, which runs at once or is delegated."""

    label: ClassVar[str]
    description: ClassVar[str]
    generator: ClassVar[bool] = False

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name=self.name,
            label=self.label,
            description=self.description,
            icon="/assets/regions.svg",
            dynamic=True,
            execute_as_generator=self.generator,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    @abstractmethod
    def form(self, inputs: types.Object, ctx: Context) -> None:
        """Add the fields of the form. What it raises is shown, and keeps the form from being executed."""

    def resolve_input(self, ctx: Context) -> types.Property:
        inputs = types.Object()
        try:
            self.form(inputs, ctx)
        except MISUSE as error:
            notice(inputs, "misuse", str(error), error=True)
        return types.Property(inputs, view=types.View(label=self.label))


class RunOperator(LabelledOperator):
    """An operator that makes a run of its parameters."""

    generator = True
    video: ClassVar[bool] = False

    @abstractmethod
    def make_run(self, view: SampleCollection, params: Params, label_ids: LabelIds = None) -> AnyRun:
        """The checked run that parameters make; `label_ids` limit its prompts."""

    @abstractmethod
    def settings(self, inputs: types.Object, ctx: Context, view: SampleCollection) -> None:
        """Add the operator's own part of the form."""

    def prompt_field(self, params: Params) -> str | None:
        """The field whose labels are the prompts."""
        return chosen_field(params)

    def _run_of(self, ctx: Context, view: SampleCollection) -> AnyRun:
        """The run of a form, limited to the selected labels of its field of prompts, if there are any."""
        field = self.prompt_field(ctx.params)
        selected = as_list(ctx.selected_labels)
        ids = [label["label_id"] for label in selected if str(label.get("field")).removeprefix(FRAMES) == field]
        return self.make_run(view, ctx.params, tuple(ids) or None)

    def form(self, inputs: types.Object, ctx: Context) -> None:
        view = ctx.target_view(require_flat=True)
        self.settings(inputs, ctx, view)
        choose_model(inputs, ctx, video=self.video)
        run = self._run_of(ctx, view)
        notice(inputs, "estimate", run.estimate())
        if run.skipped:
            text = f"{run.skipped} {run.noun} have results in {run.request.field!r} already; they stay as they are."
            notice(inputs, "skipped", text)
        if run.total == 0:
            notice(inputs, "nothing", f"There is nothing to do: no {run.noun} are left.", error=True)
        notice(inputs, "advice", ADVICE)

    def execute(self, ctx: Context) -> dict[str, Any] | Iterator[Any]:
        """In the background, the counts; in the App, messages for it as the work goes on."""
        run = self._run_of(ctx, ctx.target_view(require_flat=True))
        if not ctx.delegated:
            return _live(ctx, run)
        for progress in now_and_then(run.steps()):
            ctx.set_progress(progress=progress.share, label=progress.text())
        return vars(progress)

    def resolve_output(self, ctx: Context) -> types.Property:
        outputs = types.Object()
        for name in SUMMARY:
            if ctx.results.get(name):
                outputs.int(name, label=name.capitalize())
        outputs.float("seconds", label="Seconds")
        if ctx.results.get("last_error"):
            outputs.str("last_error", label="Last error")
        return types.Property(outputs, view=types.View(label=f"{self.label}: done"))

    def __call__(self, view: SampleCollection, delegate: bool = False, **settings: Any) -> Any:
        """Run on a dataset or a view from Python; `settings` are the form's.

        Returns the counts of the run, or the delegated operation.
        """
        if delegate:
            return schedule(self, view, settings)
        run = self.make_run(view, settings)
        # Not by FiftyOne's executor, which ends calls after ten minutes.
        with fou.ProgressBar(total=run.total) as bar:
            for progress in run.steps():
                bar.set_iteration(progress.done)
        return vars(progress)


def _live(ctx: Context, run: AnyRun) -> Iterator[Any]:
    for progress in now_and_then(run.steps()):
        yield ctx.ops.set_progress(progress=progress.share, label=progress.text())
    variant = "warning" if progress.failed else "success"
    yield ctx.ops.notify(f"{run.request.field}: {progress.text()}", variant=variant)
    yield ctx.ops.reload_dataset()


def now_and_then(steps: Iterator[Steps]) -> Iterator[Steps]:
    """The first of the steps, the last, and one every REPORT_SECONDS between."""
    shown = 0.0
    for progress in steps:
        if time.monotonic() - shown >= REPORT_SECONDS:
            shown = time.monotonic()
            yield progress
    yield progress


def schedule(operator: foo.Operator, view: SampleCollection, settings: Params) -> Any:
    """Leave the work to `fiftyone delegated launch`; the operation that was queued."""
    context = {"view": view.view() if isinstance(view, fo.Dataset) else view, "params": dict(settings)}
    return foo.execute_operator(operator.uri, context, request_delegation=True).result
