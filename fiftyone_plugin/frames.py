"""Labels on the frames of one video, read and written by the database's own operations.

FiftyOne's interface to frames reads whole frames, with every mask on them, and keeps them. Here only what is asked
for is read, and a batch of frames is one request, whatever the length of the video. Frames are numbered from 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

import fiftyone as fo
import fiftyone.core.odm as foo
from bson import ObjectId
from pymongo import UpdateMany, UpdateOne

from fiftyone_plugin.checks import field_type
from fiftyone_plugin.labels import Label


class VideoFrames:
    """The frames of the sample `sample_id`."""

    def __init__(self, dataset: fo.Dataset, sample_id: str) -> None:
        self._dataset = dataset
        self._frames = dataset._frame_collection
        self._of_video = {"_sample_id": ObjectId(sample_id)}

    def outlines(self, field: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """For each label of a field of the frames: the frame's number, and `id`, `index` and `instance` of the label,
        where it has them. Frames in order, without what makes labels large.
        """
        name = self._list(field)
        wanted = {f"{name}._id": 1, f"{name}.index": 1, f"{name}.instance._id": 1, "frame_number": 1}
        match = {**self._of_video, f"{name}.0": {"$exists": True}}
        for frame in self._frames.find(match, wanted).sort("frame_number", 1):
            for label in frame[field][name.partition(".")[2]]:
                instance = (label.get("instance") or {}).get("_id")
                yield (
                    frame["frame_number"],
                    {
                        "id": str(label["_id"]),
                        "index": label.get("index"),
                        "instance": str(instance) if instance else None,
                    },
                )

    def labels(self, field: str, number: int) -> list[Label]:
        """The labels of one frame."""
        found = self._frames.find_one({**self._of_video, "frame_number": number}, {field: 1})
        if not found or not found.get(field):
            return []
        kind: Any = field_type(self._dataset, f"frames.{field}")
        value = kind.from_dict(found[field])
        return list(value[kind._LABEL_LIST_FIELD])

    def write(self, field: str, labels: Mapping[int, fo.Label]) -> None:
        """Put labels on frames by number, in place of those in the field; what else is on the frames stays."""
        now = _now()
        made = {"created_at": now, "_dataset_id": self._dataset._doc.id}
        self._do(
            [
                UpdateOne(
                    {**self._of_video, "frame_number": number},
                    {"$set": {field: value.to_dict(), "last_modified_at": now}, "$setOnInsert": made},
                    upsert=True,
                )
                for number, value in labels.items()
            ]
        )

    def describe(self, field: str, index: int, first: int, last: int, attributes: Mapping[str, str]) -> None:
        """Set attributes of the labels with this `index` on the frames from `first` to `last`, both included."""
        name = self._list(field)
        change = {f"{name}.$[label].{attribute}": value for attribute, value in attributes.items()}
        self._do(
            [
                UpdateMany(
                    {**self._of_video, "frame_number": {"$gte": first, "$lte": last}, f"{name}.index": index},
                    {"$set": {**change, "last_modified_at": _now()}},
                    array_filters=[{"label.index": index}],
                )
            ]
        )

    def clear(self, field: str) -> None:
        """Take the field off every frame."""
        self._do([UpdateMany({**self._of_video, field: {"$exists": True}}, {"$unset": {field: ""}})])

    def _list(self, field: str) -> str:
        kind: Any = field_type(self._dataset, f"frames.{field}")
        return f"{field}.{kind._LABEL_LIST_FIELD}"

    def _do(self, changes: list[Any]) -> None:
        if changes:
            foo.bulk_write(changes, self._frames)


def _now() -> datetime:
    """The time as the database has it: UTC, without saying so."""
    return datetime.now(timezone.utc).replace(tzinfo=None)
