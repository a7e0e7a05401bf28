"""Perceive regions, and caption existing ones."""

from __future__ import annotations

from typing import Any

from fiftyone.operators import types

from fiftyone_plugin.checks import FiftyOneError, prompt_fields
from fiftyone_plugin.images import GEOMETRIES, ImageRequest, ImageRun
from fiftyone_plugin.mongo import SampleCollection, dataset_of
from fiftyone_plugin.operators.base import LabelIds, Params, RunOperator
from fiftyone_plugin.operators.form import NO_FIELD, Context, choose, chosen_field, chosen_names, given
from pam_plugins import plugins
from pam_plugins.options import Options


class PerceiveRegions(RunOperator):
    """Masks and texts for the regions that labels are prompts for, or for everything in the picture.

    Settings: field, prompt_field, model, device, tasks, languages, existing, geometry, mask_folder, proposer.
    """

    name = "perceive_regions"
    label = "Perceive regions"
    description = "Mask, label, explain and caption what labels point at, or everything in each image"

    def make_run(self, view: SampleCollection, params: Params, label_ids: LabelIds = None) -> ImageRun:
        return ImageRun(view, image_request(params, label_ids))

    def settings(self, inputs: types.Object, ctx: Context, view: SampleCollection) -> None:
        fields = {name: f"The labels of {name}" for name in prompt_fields(dataset_of(view))}
        hint = "Boxes, masks, outlines and keypoints can be prompts; selected labels limit them"
        prompts = {NO_FIELD: "None: everything in the image", **fields}
        choose(inputs, "prompt_field", prompts, label="Prompts", description=hint)
        inputs.str("field", default=ImageRequest.field, label="Field for the results")
        choose(inputs, "existing", ImageRun.existing, label="Samples with results")
        choose(inputs, "geometry", GEOMETRIES, label="Keep masks")
        if ctx.params.get("geometry") == "mask_path":
            inputs.str("mask_folder", label="Folder for the masks", description="The default is beside the datasets")
        if chosen_field(ctx.params) is None:
            proposers = {name: proposer.description for name, proposer in plugins.proposers().items()}
            choose(inputs, "proposer", proposers, Options.proposer, label="Proposer of regions")


class CaptionRegions(RunOperator):
    """Texts for existing labels; their boxes and masks stay as they are.

    Settings: field, existing, relabel, model, device, tasks, languages.
    """

    name = "caption_regions"
    label = "Caption existing regions"
    description = "Label, explain and caption detections that are there already, without detecting anew"

    def make_run(self, view: SampleCollection, params: Params, label_ids: LabelIds = None) -> ImageRun:
        return ImageRun(view, image_request(params, label_ids, caption=True))

    def prompt_field(self, params: Params) -> str | None:
        return params.get("field")

    def settings(self, inputs: types.Object, ctx: Context, view: SampleCollection) -> None:
        dataset = dataset_of(view)
        fields = prompt_fields(dataset)
        if not fields:
            raise FiftyOneError(
                f"The dataset {dataset.name!r} has no field of Detections, Keypoints or Polylines to caption."
            )
        choose(inputs, "field", {name: name for name in fields}, label="Labels to caption")
        existing = {"skip": "Leave labels that have texts as they are", "overwrite": "Write new texts for all"}
        choose(inputs, "existing", existing, label="Labels with texts")
        hint = "Otherwise the model's own label goes to perceived_label"
        inputs.bool("relabel", default=False, label="Change labels too", description=hint)
        ctx.params.setdefault("field", fields[0])

    def __call__(  # type: ignore[override]  # the field has no default here
        self, view: SampleCollection, field: str, delegate: bool = False, **settings: Any
    ) -> Any:
        """Caption the labels of `field` in a dataset or a view from Python; `settings` are the form's."""
        return super().__call__(view, delegate, field=field, **settings)


def image_request(params: Params, label_ids: LabelIds = None, *, caption: bool = False) -> ImageRequest:
    """The request that parameters make. Raises FiftyOneError, NotFoundError and UnsupportedError."""
    if caption and not params.get("field"):
        raise FiftyOneError("Got no field; wanted the field whose labels are to be captioned.")
    info = plugins.resolve_model(params.get("model") or "auto")
    proposer = params.get("proposer") or Options.proposer
    options = Options(chosen_names(params, "tasks"), chosen_names(params, "languages") or ("en",), proposer)
    options.tasks_for(info)
    return ImageRequest(
        **given(params, "field", "relabel", "device", "geometry", "existing"),
        caption=caption,
        prompt_field=None if caption else chosen_field(params),
        label_ids=label_ids,
        model=info.name,
        mask_folder=params.get("mask_folder") or None,
        options=options,
    )
