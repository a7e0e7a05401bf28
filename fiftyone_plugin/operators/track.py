"""Track and caption: objects are tracked through videos."""

from __future__ import annotations

from fiftyone.operators import types

from fiftyone_plugin.checks import prompt_fields
from fiftyone_plugin.mongo import SampleCollection, dataset_of
from fiftyone_plugin.operators.base import LabelIds, Params, RunOperator
from fiftyone_plugin.operators.form import FRAMES, NO_FIELD, Context, choose, chosen_field, chosen_names, given
from fiftyone_plugin.videos import VideoRequest, VideoRun
from pam_core.errors import UnsupportedError
from pam_plugins import plugins


class TrackAndCaption(RunOperator):
    """Masks of tracked objects on every frame, and a caption of each of their events.

    Settings: prompt_field, max_objects, field, existing, model, device, languages.
    """

    name = "track_and_caption"
    label = "Track and caption"
    description = "Track objects through videos, with a mask on every frame, and caption what each of them does"
    video = True

    def make_run(self, view: SampleCollection, params: Params, label_ids: LabelIds = None) -> VideoRun:
        return VideoRun(view, video_request(params, label_ids))

    def settings(self, inputs: types.Object, ctx: Context, view: SampleCollection) -> None:
        names = [name.removeprefix(FRAMES) for name in prompt_fields(dataset_of(view), frames=True)]
        prompts = {NO_FIELD: "None: regions of the first frame"}
        prompts |= {name: f"The labels of {FRAMES}{name}" for name in names}
        hint = "An object begins where its index or instance appears first; selected labels limit them"
        choose(inputs, "prompt_field", prompts, label="Prompts", description=hint)
        if chosen_field(ctx.params) is None:
            inputs.int("max_objects", default=VideoRequest.max_objects, min=1, label="Largest number of objects")
        hint = "On the frames; events go to NAME_events of the video"
        inputs.str("field", default=VideoRequest.field, label="Field for the tracks", description=hint)
        choose(inputs, "existing", VideoRun.existing, label="Videos with tracks")


def video_request(params: Params, label_ids: LabelIds = None) -> VideoRequest:
    """The request that parameters make. Raises NotFoundError and UnsupportedError."""
    languages = chosen_names(params, "languages") or ("en",)
    max_objects = params.get("max_objects", VideoRequest.max_objects)
    if not isinstance(max_objects, int):
        raise UnsupportedError(f"Got max_objects={max_objects!r}; wanted a number.")
    return VideoRequest(
        **given(params, "field", "existing", "device"),
        prompt_field=chosen_field(params),
        label_ids=label_ids,
        max_objects=max_objects,
        model=plugins.resolve_video_model(params.get("model") or "auto", languages).name,
        languages=languages,
    )
