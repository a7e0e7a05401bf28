"""The private parts of FiftyOne and its MongoDB: everything that may break with another version of FiftyOne.

No other module of this package names an attribute with a leading underscore of FiftyOne's, or writes a query.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple

import fiftyone as fo
import fiftyone.core.media as fom
import fiftyone.core.odm as foo
from bson import ObjectId
from pymongo import ReturnDocument, UpdateMany, UpdateOne
from pymongo.errors import OperationFailure

SampleCollection = Any
"""A dataset or a view; FiftyOne's own class of this name."""
REFUSED = frozenset({13, 8000})
"""MongoDB's error codes for a user without the right to write."""


def dataset_of(view: SampleCollection) -> fo.Dataset:
    """The dataset of a view; a dataset is its own."""
    return view._dataset


def is_clips(view: SampleCollection) -> bool:
    """Whether the samples are clips of videos."""
    return bool(dataset_of(view)._is_clips)


def is_generated(view: SampleCollection) -> bool:
    """Whether the samples are patches, clips or frames, in a dataset that FiftyOne made for the view."""
    return bool(view._is_generated)


def view_stages(view: SampleCollection) -> Any:
    """The stages of a view, as JSON; equal for equal views."""
    return view._serialize(include_uuids=False)


def all_slices(view: SampleCollection) -> SampleCollection:
    """The samples of a view; of groups, those of every slice."""
    return view.select_group_slices(_allow_mixed=True) if view.media_type == fom.GROUP else view


def field_type(dataset: fo.Dataset, name: str) -> Any:
    """The type of a field's values: the label's class, or the field's; None where there is no such field."""
    field = dataset.get_field(name)
    if isinstance(field, fo.EmbeddedDocumentField):
        return field.document_type
    return type(field) if field is not None else None


def list_name(labels: Any) -> str:
    """The name of the list in Detections, Keypoints or Polylines (a value or the class)."""
    return str(labels._LABEL_LIST_FIELD)


def label_path(dataset: fo.Dataset, field: str) -> str:
    """The path of the list in a field of labels: `regions.detections`."""
    return f"{field}.{list_name(field_type(dataset, field))}"


def is_refusal(error: BaseException) -> bool:
    """Whether the database refused to write because its user may not."""
    return isinstance(error, OperationFailure) and error.code in REFUSED


def try_write(dataset: fo.Dataset) -> None:
    """Send an update that matches no sample. Raises what the database raises where its user may not write."""
    dataset._sample_collection.update_one({"_id": None}, {"$set": {"nothing": None}})


def review_label(
    dataset: fo.Dataset,
    field: str,
    sample_id: str,
    label_id: str,
    tag: str,
    tags: Collection[str],
    texts: Mapping[str, tuple[str, str]],
) -> tuple[fo.Label, str] | None:
    """Tag one label and set its texts in one atomic update; the label after it and its sample's file path.

    `tag` takes the place of any of `tags`. `texts` has, by attribute, the attribute that keeps the first value, and
    the new value. None where the label is gone. Samples in memory are reloaded.
    """
    if not (ObjectId.is_valid(sample_id) and ObjectId.is_valid(label_id)):
        return None
    path, this = label_path(dataset, field), ObjectId(label_id)
    others = {
        "$filter": {
            "input": {"$ifNull": ["$$label.tags", []]},
            "as": "tag",
            "cond": {"$not": {"$in": ["$$tag", list(tags)]}},
        }
    }
    changes: dict[str, Any] = {"tags": {"$concatArrays": [others, [tag]]}}
    for name, (original, text) in texts.items():
        old, new = {"$ifNull": [f"$$label.{name}", ""]}, {"$literal": text}
        changes[name] = new
        changes[original] = {"$ifNull": [f"$$label.{original}", {"$cond": [{"$eq": [old, new]}, "$$REMOVE", old]}]}
    changed = {"$cond": [{"$eq": ["$$label._id", this]}, {"$mergeObjects": ["$$label", changes]}, "$$label"]}
    labels = {"$map": {"input": f"${path}", "as": "label", "in": changed}}
    only_this = {"$filter": {"input": f"${path}", "as": "label", "cond": {"$eq": ["$$label._id", this]}}}
    updated = dataset._sample_collection.find_one_and_update(
        {"_id": ObjectId(sample_id), f"{path}._id": this},
        [{"$set": {path: labels, "last_modified_at": datetime.now(timezone.utc)}}],
        projection={"filepath": 1, "label": {"$first": only_this}},
        return_document=ReturnDocument.AFTER,
    )
    if updated is None:
        return None
    fo.Sample._reload_docs(dataset._sample_collection_name, sample_ids=[sample_id])
    kind = {fo.Detections: fo.Detection, fo.Polylines: fo.Polyline}[field_type(dataset, field)]
    return kind.from_dict(updated["label"]), updated["filepath"]


@dataclass(frozen=True)
class LabelQuery:
    """Labels that have `search` in one of their texts (whatever the case; there are no wildcards), the tag `tag`, and
    none of the tags `without_tags`.
    """

    search: str = ""
    tag: str = ""
    without_tags: Collection[str] = ()
    skip: int = 0
    limit: int = 50


def find_labels(
    view: SampleCollection, field: str, texts: Collection[str], query: LabelQuery, beside: str
) -> Iterator[dict[str, Any]]:
    """The labels of a query in the view's order: `_id` of the sample, `value` of its field `beside`, and as `label`
    the label's own `_id`, `tags`, `model`, `confidence` and `texts`. Masks stay in the database.
    """
    path = label_path(dataset_of(view), field)
    conditions: list[dict[str, Any]] = []
    if query.search:
        text = {"$regex": re.escape(query.search), "$options": "i"}
        conditions.append({"$or": [{name: text} for name in texts]})
    if query.tag:
        conditions.append({"tags": query.tag})
    if query.without_tags:
        conditions.append({"tags": {"$nin": list(query.without_tags)}})
    label = {name: f"$$label.{name}" for name in ("_id", "tags", "model", "confidence", *texts)}
    on_samples = {path: {"$elemMatch": {"$and": conditions}}} if conditions else {f"{path}.0": {"$exists": True}}
    stages: list[dict[str, Any]] = [
        {"$match": on_samples},  # first, so that only labels of samples with a match are unwound
        {"$project": {"value": f"${beside}", "label": {"$map": {"input": f"${path}", "as": "label", "in": label}}}},
        {"$unwind": "$label"},
        *({"$match": _under("label", condition)} for condition in conditions),
        {"$skip": query.skip},
        {"$limit": query.limit},
    ]
    yield from view._aggregate(pipeline=stages)


def _under(name: str, condition: dict[str, Any]) -> dict[str, Any]:
    """The condition of `find_labels` on what is under the key `name`."""
    if "$or" in condition:
        return {"$or": [_under(name, part) for part in condition["$or"]]}
    return {f"{name}.{key}": value for key, value in condition.items()}


class LabelOutline(NamedTuple):
    """A label on a frame, without its shape. Labels with one `object_key` (an instance's id or an index) are of one
    object.
    """

    frame_number: int
    label_id: str
    track_index: int | None
    object_key: str | int | None


class VideoFrames:
    """The labels on the frames of one video, read and written in batches. Frames are numbered from 1.

    FiftyOne's own interface to frames reads every frame with all its masks, and keeps them in memory.
    """

    def __init__(self, dataset: fo.Dataset, sample_id: str) -> None:
        self.sample_id, self._dataset = sample_id, dataset
        self._collection = dataset._frame_collection
        self._of_video = {"_sample_id": ObjectId(sample_id)}

    def outlines(self, field: str) -> Iterator[LabelOutline]:
        """The labels of a field, frames in order. Masks are not read."""
        path = self._path(field)
        fields = {f"{path}._id": 1, f"{path}.index": 1, f"{path}.instance._id": 1, "frame_number": 1}
        match = {**self._of_video, f"{path}.0": {"$exists": True}}
        for frame in self._collection.find(match, fields).sort("frame_number", 1):
            for label in frame[field][path.partition(".")[2]]:
                index, instance = label.get("index"), (label.get("instance") or {}).get("_id")
                yield LabelOutline(
                    frame["frame_number"], str(label["_id"]), index, str(instance) if instance else index
                )

    def labels(self, field: str, number: int) -> list[Any]:
        """The labels of one frame."""
        frame = self._collection.find_one({**self._of_video, "frame_number": number}, {field: 1})
        if not frame or not frame.get(field):
            return []
        value = field_type(self._dataset, f"frames.{field}").from_dict(frame[field])
        return list(value[list_name(value)])

    def write(self, field: str, labels: Mapping[int, fo.Label]) -> None:
        """Set the field on frames by number; other fields of the frames stay."""
        now = _now()
        created = {"created_at": now, "_dataset_id": self._dataset._doc.id}
        self._update(
            UpdateOne(
                {**self._of_video, "frame_number": number},
                {"$set": {field: value.to_dict(), "last_modified_at": now}, "$setOnInsert": created},
                upsert=True,
            )
            for number, value in labels.items()
        )

    def describe(self, field: str, index: int, first: int, last: int, attributes: Mapping[str, str]) -> None:
        """Set attributes of the labels with this `index` on the frames from `first` to `last`, both included."""
        path = self._path(field)
        change = {f"{path}.$[label].{name}": value for name, value in attributes.items()}
        on_frames = {**self._of_video, "frame_number": {"$gte": first, "$lte": last}, f"{path}.index": index}
        update = {"$set": {**change, "last_modified_at": _now()}}
        self._update([UpdateMany(on_frames, update, array_filters=[{"label.index": index}])])

    def clear(self, field: str) -> None:
        """Remove the field from every frame."""
        self._update([UpdateMany({**self._of_video, field: {"$exists": True}}, {"$unset": {field: ""}})])

    def _path(self, field: str) -> str:
        return label_path(self._dataset, f"frames.{field}").removeprefix("frames.")

    def _update(self, operations: Any) -> None:
        if batch := list(operations):
            foo.bulk_write(batch, self._collection)


def _now() -> datetime:
    """The time as the database has it: UTC, without a time zone."""
    return datetime.now(timezone.utc).replace(tzinfo=None)
