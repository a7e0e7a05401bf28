"""What is wrong with a dataset, a view or a field, found before any work is done and said in a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import fiftyone as fo
import fiftyone.core.media as fom
from pymongo.errors import OperationFailure

from fiftyone_plugin.prompts import PROMPT_TYPES
from pam_core.errors import DatasetError

if TYPE_CHECKING:
    from fiftyone_plugin.tracks import TrackFields

RESULT_TYPES = {"mask": fo.Detections, "mask_path": fo.Detections, "polyline": fo.Polylines}
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
NOT_ALLOWED = frozenset({13, 8000})
"""MongoDB's codes for a user who may not write."""
RESERVED = frozenset({"id", "filepath", "tags", "metadata", "frames", "group"})


class EnrichError(DatasetError):
    """A dataset that cannot be enriched as asked: says what was got, what was wanted and what to do."""


def check_media(view: fo.core.collections.SampleCollection, media: str) -> None:
    """Raise EnrichError unless the view holds samples of this media type ("image" or "video") only."""
    got = view.media_type
    if media == "video" and view._dataset._is_clips:
        raise EnrichError(
            "Got clips of videos; wanted whole videos. Choose these with dataset.select(clips.values('sample_id'))."
        )
    if got == fom.GROUP:
        slices = ", ".join(view._dataset.group_slices or ())
        raise EnrichError(
            f"Got the grouped dataset {view._dataset.name!r} without a slice; wanted {media}s of one of its slices "
            f"({slices}). Choose one with view.select_group_slices(...)."
        )
    if got == media or got is None:
        return
    if got == fom.MIXED:
        raise EnrichError(
            f"Got samples of several media types; wanted {media}s only. Choose them with a match on the media type."
        )
    other = "'Track and caption' (track_and_caption)" if got == "video" else "'Perceive regions' (perceive_regions)"
    hint = f" For {got}s there is the operator {other}." if got in ("image", "video") else ""
    raise EnrichError(f"Got {got} samples; wanted {media} samples.{hint}")


@contextmanager
def said_read_only(dataset: fo.Dataset) -> Iterator[None]:
    """Make the database's refusal to write an EnrichError."""
    try:
        yield
    except OperationFailure as error:
        if error.code not in NOT_ALLOWED:
            raise
        raise EnrichError(
            f"The dataset {dataset.name!r} is read-only for this user of the database ({error}); wanted one that "
            "may be written. Connect as a user who may write, or clone it into a database of yours."
        ) from error


def check_result_field(dataset: fo.Dataset, name: str, kind: str) -> None:
    """Raise EnrichError unless results of this geometry can go to the field `name`."""
    check_name(name)
    field = dataset.get_field(name)
    if field is not None and field.read_only:
        raise EnrichError(f"The field {name!r} is read-only; wanted one that may be written, or a new one.")
    wanted = RESULT_TYPES[kind]
    got = field_type(dataset, name)
    if got is not None and got is not wanted:
        raise EnrichError(
            f"The field {name!r} holds {got.__name__}; wanted {wanted.__name__} for results kept as {kind}, "
            "or a field that does not exist yet. Nothing was changed."
        )


def check_track_fields(dataset: fo.Dataset, fields: TrackFields) -> None:
    """Raise EnrichError unless tracks can go to the frames' field and to those beside it."""
    check_name(fields.result)
    frame_field = f"frames.{fields.result}"
    for name, wanted in ((frame_field, fo.Detections), (fields.events, fo.TemporalDetections)):
        field, got = dataset.get_field(name), field_type(dataset, name)
        if field is not None and field.read_only:
            raise EnrichError(f"The field {name!r} is read-only; wanted one that may be written, or a new one.")
        if got is not None and got is not wanted:
            raise EnrichError(
                f"The field {name!r} holds {got.__name__}; wanted {wanted.__name__}, or a field that does not exist "
                "yet. Nothing was changed."
            )
    if dataset.get_field(frame_field) is not None and dataset.get_field(fields.run) is None:
        raise EnrichError(
            f"The field {frame_field!r} holds labels that no run of tracking made, and tracks would replace them; "
            "wanted a new name, such as tracks. Nothing was changed."
        )


def check_name(name: str) -> None:
    """Raise EnrichError unless `name` can be that of a field of results."""
    if not NAME.fullmatch(name) or name in RESERVED:
        raise EnrichError(
            f"Got the field name {name!r}; wanted a new name of letters, digits and underscores, such as regions."
        )


def check_prompt_field(dataset: fo.Dataset, name: str) -> None:
    """Raise EnrichError unless the field `name` holds labels that can be prompts."""
    got = field_type(dataset, name)
    if got is None:
        known = ", ".join(prompt_fields(dataset, frames=name.startswith("frames."))) or "none"
        raise EnrichError(f"There is no field {name!r}; the fields that can be prompts are: {known}.")
    if got not in PROMPT_TYPES:
        wanted = ", ".join(kind.__name__ for kind in PROMPT_TYPES)
        raise EnrichError(f"The field {name!r} holds {got.__name__}; wanted one of {wanted}.")


def field_type(dataset: fo.Dataset, name: str) -> type | None:
    """The type of the values of a field: a label's class, or the field's; None where there is no such field."""
    field = dataset.get_field(name)
    if isinstance(field, fo.EmbeddedDocumentField):
        return field.document_type
    return type(field) if field is not None else None


def prompt_fields(dataset: fo.Dataset, *, frames: bool = False) -> list[str]:
    """The fields whose labels can be prompts; those of the frames of videos as "frames.NAME"."""
    names = [f"frames.{name}" for name in dataset.get_frame_field_schema() or ()] if frames else None
    found = dataset.get_field_schema() if names is None else names
    return [name for name in found if field_type(dataset, name) in PROMPT_TYPES]
