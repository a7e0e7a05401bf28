"""Perceive regions, and caption the labels that are there: forms and execution; the work is in `work.py`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import fiftyone.core.utils as fou
import fiftyone.operators as foo
from fiftyone.operators import types

from fiftyone_plugin.checks import EnrichError, prompt_fields
from fiftyone_plugin.dataset import Collected
from fiftyone_plugin.operators.form import (
    NO_FIELD,
    Context,
    as_list,
    checked_options,
    choices,
    choose_model,
    chosen_field,
    say,
    schedule,
)
from fiftyone_plugin.tracks import TrackWork
from fiftyone_plugin.work import EXISTING, GEOMETRIES, Request, Work
from pam_core.errors import NotFoundError, UnsupportedError
from pam_plugins import plugins

REPORT_SECONDS = 0.5
"""How often progress is shown."""
NAMES = ("field", "relabel", "device", "geometry", "existing")
"""Parameters that are a request's as they are."""
MISUSE = (EnrichError, UnsupportedError, NotFoundError)
SUMMARY = {
    "done": "Samples dealt with",
    "perceived": "Perceived",
    "regions": "Regions",
    "resumed": "Taken over from an earlier run",
    "skipped": "Left as they were",
    "failed": "Failed",
    "seconds": "Seconds",
    "last_error": "The last failure",
}


class EnrichOperator(foo.Operator):
    """What the operators share."""

    label: ClassVar[str]
    description: ClassVar[str]
    summary: ClassVar[dict[str, str]] = SUMMARY
    video: ClassVar[bool] = False

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name=self.name,
            label=self.label,
            description=self.description,
            icon="/assets/regions.svg",
            dynamic=True,
            execute_as_generator=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def work(self, ctx: Context, view: Collected) -> Work | TrackWork:
        """What the form asks for, checked."""
        raise NotImplementedError

    def settings(self, inputs: types.Object, ctx: Context, view: Collected) -> None:
        """The operator's own part of the form."""
        raise NotImplementedError

    def resolve_input(self, ctx: Context) -> types.Property:
        inputs = types.Object()
        try:
            view = ctx.target_view(require_flat=True)
            self.settings(inputs, ctx, view)
            choose_model(inputs, ctx, video=self.video)
            work = self.work(ctx, view)
            say(inputs, "estimate", work.estimate())
            if work.skipped:
                say(
                    inputs,
                    "skipped",
                    f"{work.skipped} samples have results in {work.request.field!r} already; they stay as they are.",
                )
            if work.total == 0:
                say(inputs, "nothing", "There is nothing to do: no sample is left to look at.", error=True)
        except MISUSE as error:
            say(inputs, "misuse", str(error), error=True)
        inputs.str(
            "advice",
            view=types.Notice(
                label="Execute shows progress here and stops with the App. Schedule runs in the background, "
                "where `fiftyone delegated launch` is running."
            ),
        )
        return types.Property(inputs, view=types.View(label=self.config.label))

    def execute(self, ctx: Context) -> dict[str, Any] | Iterator[Any]:
        """In the background, the counts; in the App, messages for it as the work goes on."""
        work = self.work(ctx, ctx.target_view(require_flat=True))
        if not ctx.delegated:
            return _live(ctx, work)
        for progress in now_and_then(work.steps()):
            ctx.set_progress(progress=progress.share, label=progress.text())
        return vars(progress)

    def resolve_output(self, ctx: Context) -> types.Property:
        outputs = types.Object()
        for name, label in self.summary.items():
            if ctx.results.get(name):
                kind = outputs.str if name == "last_error" else outputs.float if name == "seconds" else outputs.int
                kind(name, label=label)
        return types.Property(outputs, view=types.View(label=f"{self.config.label}: done"))


def _live(ctx: Context, work: Work | TrackWork) -> Iterator[Any]:
    for progress in now_and_then(work.steps()):
        yield ctx.ops.set_progress(progress=progress.share, label=progress.text())
    variant = "warning" if progress.failed else "success"
    yield ctx.ops.notify(f"{work.request.field}: {progress.text()}", variant=variant)
    yield ctx.ops.reload_dataset()


def now_and_then(steps: Iterator[Any]) -> Iterator[Any]:
    """The first of the steps, the last, and one every REPORT_SECONDS between."""
    shown = 0.0
    for progress in steps:
        if time.monotonic() - shown >= REPORT_SECONDS:
            shown = time.monotonic()
            yield progress
    yield progress


class PerceiveRegions(EnrichOperator):
    """Masks and words for what labels point at, or for everything in the picture."""

    name = "perceive_regions"
    label = "Perceive regions"
    description = "Mask, label, explain and caption what labels point at, or everything in each image"

    def work(self, ctx: Context, view: Collected) -> Work:
        return Work(view, _request(ctx, caption=False))

    def settings(self, inputs: types.Object, ctx: Context, view: Collected) -> None:
        fields = prompt_fields(view._dataset)
        places = {NO_FIELD: "Nothing: look for everything", **{name: f"The labels of {name}" for name in fields}}
        inputs.enum(
            "prompt_field", list(places), default=NO_FIELD, label="Where to look", view=choices(places),
            description="Boxes, masks, outlines and keypoints can be prompts; selected labels limit them",
        )  # fmt: skip
        inputs.str("field", default=Request.field, label="Field for the results")
        inputs.enum(
            "existing", list(EXISTING), default=Request.existing, label="Samples with results",
            view=choices(EXISTING),
        )  # fmt: skip
        inputs.enum(
            "geometry", list(GEOMETRIES), default=Request.geometry, label="Keep masks", view=choices(GEOMETRIES)
        )
        if ctx.params.get("geometry") == "mask_path":
            inputs.str("mask_folder", label="Folder for the masks", description="The default is beside the datasets")
        if chosen_field(ctx.params) is None:
            proposers = {name: proposer.description for name, proposer in plugins.proposers().items()}
            inputs.enum(
                "proposer", list(proposers), default="grid", label="How to find everything", view=choices(proposers)
            )

    def __call__(self, view: Collected, delegate: bool = False, **settings: Any) -> Any:
        """Perceive regions of a dataset or a view from Python.

        `settings` are the form's: field, prompt_field, model, tasks, languages, existing, geometry, mask_folder,
        proposer. Returns the counts of the run, or the delegated operation.
        """
        return schedule(self, view, settings) if delegate else finish(Work(view, request_of(settings, None)))


class CaptionRegions(EnrichOperator):
    """Words for the labels that are there; their boxes and masks stay as they are."""

    name = "caption_regions"
    label = "Caption existing regions"
    description = "Label, explain and caption detections that are there already, without detecting anew"

    def work(self, ctx: Context, view: Collected) -> Work:
        return Work(view, _request(ctx, caption=True))

    def settings(self, inputs: types.Object, ctx: Context, view: Collected) -> None:
        fields = prompt_fields(view._dataset)
        if not fields:
            raise EnrichError(
                f"The dataset {view._dataset.name!r} has no field of Detections, Keypoints or Polylines to caption."
            )
        inputs.enum("field", fields, default=fields[0], label="Labels to caption")
        existing = {"skip": "Leave labels that have words as they are", "overwrite": "Write new words for all"}
        inputs.enum("existing", list(existing), default="skip", label="Labels with words", view=choices(existing))
        inputs.bool(
            "relabel", default=False, label="Change labels too",
            description="Otherwise the model's own label goes to perceived_label",
        )  # fmt: skip
        ctx.params.setdefault("field", fields[0])

    def __call__(self, view: Collected, field: str, delegate: bool = False, **settings: Any) -> Any:
        """Caption the labels of `field` in a dataset or a view from Python.

        `settings` are the form's: existing, relabel, model, tasks, languages.
        """
        settings = {"field": field, **settings}
        if delegate:
            return schedule(self, view, settings)
        return finish(Work(view, request_of(settings, None, caption=True)))


def _request(ctx: Context, *, caption: bool) -> Request:
    """The request that a form makes, limited to the selected labels of its field, if there are any."""
    field = ctx.params.get("field") if caption else chosen_field(ctx.params)
    selected = [label["label_id"] for label in as_list(ctx.selected_labels) if label.get("field") == field]
    return request_of(ctx.params, tuple(selected) or None, caption=caption)


def request_of(
    params: Mapping[str, Any], label_ids: tuple[str, ...] | None = None, *, caption: bool = False
) -> Request:
    """The request that parameters make. Raises what an impossible one raises."""
    if caption and not params.get("field"):
        raise EnrichError("Got no field; wanted the field whose labels are to be captioned.")
    info = plugins.resolve_model(params.get("model") or "auto")
    return Request(
        **{name: params[name] for name in NAMES if params.get(name) is not None},
        caption=caption,
        prompt_field=None if caption else chosen_field(params),
        label_ids=label_ids,
        model=info.name,
        mask_folder=params.get("mask_folder") or None,
        options=checked_options(info, params),
    )


def finish(work: Work | TrackWork) -> dict[str, Any]:
    """Do the work now and return its counts. Not through FiftyOne's executor, which ends calls after ten minutes."""
    with fou.ProgressBar(total=work.total) as bar:
        for progress in work.steps():
            bar.set_iteration(progress.done)
    return vars(progress)
