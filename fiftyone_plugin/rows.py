"""The regions of a view as rows of a table, a page at a time: looked for in the database, masks left there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo

from fiftyone_plugin.checks import field_type
from fiftyone_plugin.dataset import Collected, Fields, flat
from fiftyone_plugin.feedback import EDITABLE, REVIEWABLE, VERDICTS, clean, verdict_of
from fiftyone_plugin.labels import ANSWERS

PAGE = 50
"""Rows of a page."""
LONGEST_SEARCH = 200
"""Characters of a search that are looked for; the rest is left out."""
NOT_REVIEWED = "open"
REVIEWS = ("all", NOT_REVIEWED, *VERDICTS)


@dataclass(frozen=True)
class Query:
    """Which regions: those of `field` that have `search` in one of their texts, in a review state, of some samples.

    `page` counts from 0. `samples` are ids; None is every sample of the view.
    """

    field: str
    search: str = ""
    review: str = "all"
    samples: Sequence[str] | None = None
    page: int = 0


@dataclass(frozen=True)
class Row:
    """One region. `texts` are those that a person may edit; `seconds` is what its picture took."""

    sample_id: str
    label_id: str
    texts: dict[str, str]
    confidence: float | None
    model: str
    seconds: float | None
    tags: tuple[str, ...]

    @property
    def review(self) -> str:
        verdict = verdict_of(self.tags)
        return verdict.value if verdict else ""


def reviewable_fields(dataset: fo.Dataset) -> list[str]:
    """The fields of regions that a model wrote: Detections and Polylines whose labels say which model."""
    found = []
    for name in dataset.get_field_schema():
        kind: Any = field_type(dataset, name)
        if kind in REVIEWABLE and dataset.get_field(f"{name}.{kind._LABEL_LIST_FIELD}.model") is not None:
            found.append(name)
    return found


def rows_of(view: Collected, query: Query) -> tuple[list[Row], bool]:
    """A page of rows in the view's order, and whether there are more behind it."""
    view = flat(view)
    if query.samples is not None:
        view = view.select(list(query.samples))
    rows = [_row(found) for found in view._aggregate(pipeline=_pipeline(view._dataset, query))]
    return rows[:PAGE], len(rows) > PAGE


def _pipeline(dataset: fo.Dataset, query: Query) -> list[dict[str, Any]]:
    kind: Any = field_type(dataset, query.field)
    path = f"{query.field}.{kind._LABEL_LIST_FIELD}"
    wanted = _wanted(dataset, path, query)
    attributes = ("_id", "confidence", "model", "tags", *ANSWERS)
    label = {name: f"$$label.{name}" for name in attributes}
    stages: list[dict[str, Any]] = [
        # Samples without such a label go first, so that only the labels of the others are taken apart.
        {"$match": {path: {"$elemMatch": wanted}} if wanted else {f"{path}.0": {"$exists": True}}},
        {
            "$project": {
                "seconds": f"${Fields(query.field).seconds}",
                "label": {"$map": {"input": f"${path}", "as": "label", "in": label}},
            }
        },
        {"$unwind": "$label"},
    ]
    if wanted:
        stages.append({"$match": _under("label", wanted)})
    return [*stages, {"$skip": query.page * PAGE}, {"$limit": PAGE + 1}]


def _wanted(dataset: fo.Dataset, path: str, query: Query) -> dict[str, Any]:
    """What a label has to be, as a condition on its attributes."""
    conditions: list[dict[str, Any]] = []
    words = clean(query.search)[:LONGEST_SEARCH]
    if words:
        looked = {"$regex": re.escape(words), "$options": "i"}
        texts = [name for name in ANSWERS if dataset.get_field(f"{path}.{name}") is not None]
        conditions.append({"$or": [{name: looked} for name in texts]})
    if query.review == NOT_REVIEWED:
        conditions.append({"tags": {"$nin": list(VERDICTS)}})
    elif query.review in VERDICTS:
        conditions.append({"tags": query.review})
    return {"$and": conditions} if conditions else {}


def _under(name: str, condition: dict[str, Any]) -> dict[str, Any]:
    """The condition on what is under the key `name`."""
    return {
        key if key.startswith("$") else f"{name}.{key}": [_under(name, part) for part in value]
        if key in ("$and", "$or")
        else value
        for key, value in condition.items()
    }


def _row(found: dict[str, Any]) -> Row:
    label = found["label"]
    return Row(
        sample_id=str(found["_id"]),
        label_id=str(label["_id"]),
        texts={name: label[name] for name in EDITABLE if isinstance(label.get(name), str)},
        confidence=label.get("confidence"),
        model=label.get("model") or "",
        seconds=found.get("seconds"),
        tags=tuple(label.get("tags") or ()),
    )
