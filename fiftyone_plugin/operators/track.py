"""Track and caption: objects followed through videos; the work is in `tracks.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fiftyone.operators import types

from fiftyone_plugin.checks import prompt_fields
from fiftyone_plugin.dataset import Collected
from fiftyone_plugin.operators.form import NO_FIELD, Context, as_list, choices, chosen_field, schedule
from fiftyone_plugin.operators.perceive import EnrichOperator, finish
from fiftyone_plugin.tracks import EXISTING, TrackRequest, TrackWork
from pam_core.errors import UnsupportedError
from pam_plugins import plugins

FRAMES = "frames."
SUMMARY = {
    "done": "Videos dealt with",
    "perceived": "Followed",
    "frames": "Frames",
    "tracks": "Objects",
    "events": "Events",
    "resumed": "Taken over from an earlier run",
    "skipped": "Left as they were",
    "failed": "Failed",
    "faults": "Faults in videos that were followed",
    "seconds": "Seconds",
    "last_error": "The last failure",
}


class TrackAndCaption(EnrichOperator):
    """Objects followed through videos, each with a mask on every frame, and a caption of what it does."""

    name = "track_and_caption"
    label = "Track and caption"
    description = "Follow objects through videos, with a mask on every frame, and say what each of them does"

    video = True
    summary = SUMMARY

    def settings(self, inputs: types.Object, ctx: Context, view: Collected) -> None:
        names = [name.removeprefix(FRAMES) for name in prompt_fields(view._dataset, frames=True)]
        places = {NO_FIELD: "What is found in the first frame"} | {
            name: f"The labels of {FRAMES}{name}" for name in names
        }
        inputs.enum(
            "prompt_field", list(places), default=NO_FIELD, label="What to follow", view=choices(places),
            description="An object begins where its index or instance appears first; selected labels limit them",
        )  # fmt: skip
        if _prompt_field(ctx.params) is None:
            inputs.int("most", default=TrackRequest.most, min=1, label="At most so many objects")
        inputs.str(
            "field", default=TrackRequest.field, label="Field for the tracks",
            description="On the frames; events go to NAME_events of the video",
        )  # fmt: skip
        inputs.enum(
            "existing", list(EXISTING), default=TrackRequest.existing, label="Videos with tracks",
            view=choices(EXISTING),
        )  # fmt: skip

    def work(self, ctx: Context, view: Collected) -> TrackWork:
        return TrackWork(view, _request(ctx))

    def __call__(self, view: Collected, delegate: bool = False, **settings: Any) -> Any:
        """Track and caption objects of a dataset or a view of videos from Python.

        `settings` are the form's: prompt_field, most, field, existing, model, languages, and device. What came of it
        is returned, and in the dataset's run `pam_FIELD`.
        """
        return schedule(self, view, settings) if delegate else finish(TrackWork(view, request_of(settings)))


def _request(ctx: Context) -> TrackRequest:
    """The request that a form makes, limited to the selected labels of its field, if there are any."""
    field = _prompt_field(ctx.params)
    selected = [
        label["label_id"]
        for label in as_list(ctx.selected_labels)
        if str(label.get("field")).removeprefix(FRAMES) == field
    ]
    return request_of(ctx.params, tuple(selected) or None)


def request_of(params: Mapping[str, Any], label_ids: tuple[str, ...] | None = None) -> TrackRequest:
    """The request that parameters make. Raises what an impossible one raises."""
    languages = tuple(as_list(params.get("languages"))) or ("en",)
    most = params.get("most", TrackRequest.most)
    if any(not isinstance(code, str) for code in languages) or not isinstance(most, int):
        raise UnsupportedError(f"Got languages {languages} and at most {most!r} objects; wanted codes and a number.")
    names = ("field", "existing", "device")
    return TrackRequest(
        **{name: params[name] for name in names if params.get(name) is not None},
        prompt_field=_prompt_field(params),
        label_ids=label_ids,
        most=most,
        model=plugins.resolve_video_model(params.get("model") or "auto", languages).name,
        languages=languages,
    )


def _prompt_field(params: Mapping[str, Any]) -> str | None:
    """The field of the frames, without "frames."; None where what is found is to be followed."""
    name = chosen_field(params)
    return name.removeprefix(FRAMES) if name else None
