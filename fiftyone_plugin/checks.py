"""Checks of a dataset, a view or a field before any work is done; what is wrong is a sentence."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import fiftyone as fo
import fiftyone.core.media as fom

from fiftyone_plugin.convert import PROMPT_TYPES
from fiftyone_plugin.mongo import SampleCollection, dataset_of, field_type, is_clips, is_refusal, try_write
from pam_core.errors import DatasetError

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
RESERVED = frozenset({"id", "filepath", "tags", "metadata", "frames", "group"})


class FiftyOneError(DatasetError):
    """A dataset, a view or a field of FiftyOne's that a request does not fit."""


def check_media(view: SampleCollection, media: str) -> None:
    """Raise FiftyOneError unless the view holds samples of this media type ("image" or "video") only."""
    got, dataset = view.media_type, dataset_of(view)
    if media == "video" and is_clips(view):
        raise FiftyOneError(
            "Got clips of videos; wanted whole videos. Choose these with dataset.select(clips.values('sample_id'))."
        )
    if got == fom.GROUP:
        slices = ", ".join(dataset.group_slices or ())
        raise FiftyOneError(
            f"Got the grouped dataset {dataset.name!r} without a slice; wanted {media}s of one of its slices "
            f"({slices}). Choose one with view.select_group_slices(...)."
        )
    if got == media or got is None:
        return
    if got == fom.MIXED:
        raise FiftyOneError(
            f"Got samples of several media types; wanted {media}s only. Choose them with a match on the media type."
        )
    other = "'Track and caption' (track_and_caption)" if got == "video" else "'Perceive regions' (perceive_regions)"
    hint = f" For {got}s there is the operator {other}." if got in ("image", "video") else ""
    raise FiftyOneError(f"Got {got} samples; wanted {media} samples.{hint}")


@contextmanager
def check_writable(dataset: fo.Dataset) -> Iterator[None]:
    """Raise FiftyOneError where the database refuses to write the dataset, now or within the block."""
    try:
        try_write(dataset)
        yield
    except Exception as error:
        if not is_refusal(error):
            raise
        raise FiftyOneError(
            f"The dataset {dataset.name!r} is read-only for this user of the database ({error}); wanted one that "
            "may be written. Connect as a user who may write, or clone it into a database of yours."
        ) from error


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raise FiftyOneError unless the setting `name` has one of these values."""
    if value not in choices:
        raise FiftyOneError(f"Got {name}={value!r}; wanted one of {', '.join(choices)}.")


def check_label_field(dataset: fo.Dataset, name: str, wanted: type) -> None:
    """Raise FiftyOneError unless results of this type can go to the field `name`, which may not exist yet."""
    base = name.removeprefix("frames.")
    if not NAME.fullmatch(base) or base in RESERVED:
        raise FiftyOneError(
            f"Got the field name {base!r}; wanted a new name of letters, digits and underscores, such as regions."
        )
    field, got = dataset.get_field(name), field_type(dataset, name)
    if field is not None and field.read_only:
        raise FiftyOneError(f"The field {name!r} is read-only; wanted one that may be written, or a new one.")
    if got is not None and got is not wanted:
        raise FiftyOneError(
            f"The field {name!r} holds {got.__name__}; wanted {wanted.__name__}, or a field that does not exist yet. "
            "Nothing was changed."
        )


def check_prompt_field(dataset: fo.Dataset, name: str) -> None:
    """Raise FiftyOneError unless the field `name` holds labels that can be prompts."""
    got = field_type(dataset, name)
    if got is None:
        known = ", ".join(prompt_fields(dataset, frames=name.startswith("frames."))) or "none"
        raise FiftyOneError(f"There is no field {name!r}; the fields that can be prompts are: {known}.")
    if got not in PROMPT_TYPES:
        wanted = ", ".join(kind.__name__ for kind in PROMPT_TYPES)
        raise FiftyOneError(f"The field {name!r} holds {got.__name__}; wanted one of {wanted}.")


def prompt_fields(dataset: fo.Dataset, *, frames: bool = False) -> list[str]:
    """The fields whose labels can be prompts; those of the frames of videos as "frames.NAME"."""
    names = [f"frames.{name}" for name in dataset.get_frame_field_schema() or ()] if frames else None
    schema = dataset.get_field_schema() if names is None else names
    return [name for name in schema if field_type(dataset, name) in PROMPT_TYPES]
