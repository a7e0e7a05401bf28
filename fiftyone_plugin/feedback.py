"""What people say of regions: accepted, edited or rejected, as tags of the label, where FiftyOne itself sees them.

    tags                    one of accepted, edited and rejected, beside whatever other tags the label has
    original_label, ...     the model's own words where a person has changed them, kept from the first change on

A tag set by hand in the App is the same as one set here. Each judgement is one update of one sample in the database:
two people who judge labels of one sample at the same time do not undo each other's work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import fiftyone as fo
from bson import ObjectId
from pymongo import ReturnDocument

from fiftyone_plugin.checks import EnrichError, field_type, said_read_only
from fiftyone_plugin.dataset import Collected, flat
from fiftyone_plugin.labels import ANSWERS, region_of
from fiftyone_plugin.prompts import labels_in
from pam_core.errors import PictureError
from pam_core.media.images import picture_size
from pam_core.types import Feedback, Region, Verdict
from pam_plugins.plugins import get_plugins

SOURCE = "fiftyone"
EDITABLE = ("label", "caption", "label_zh", "caption_zh")
"""The texts of a label that a person may put right."""
VERDICTS = tuple(verdict.value for verdict in Verdict)
LONGEST = 10_000
"""Characters that a text may have."""
REVIEWABLE = {fo.Detections: fo.Detection, fo.Polylines: fo.Polyline}
"""The fields whose labels can be judged, and what is in them."""


def judge(
    dataset: fo.Dataset,
    field: str,
    sample_id: str,
    label_id: str,
    verdict: Verdict,
    texts: Mapping[str, str] | None = None,
) -> Feedback | None:
    """Write what a person says of one label, and announce it to the plugins.

    `texts` are the words as edited, by attribute (see EDITABLE). Returns what was announced; None where the label has
    no mask or its picture cannot be read, and nothing could be announced. Raises EnrichError where the label is gone,
    a text cannot be used or the field may not be written; nothing was changed then.
    """
    words = {name: checked_text(name, text) for name, text in (texts or {}).items()}
    declared = dataset.get_field(field)
    kind: Any = field_type(dataset, field)
    if declared is None or kind not in REVIEWABLE:
        raise EnrichError(f"Got the field {field!r}; wanted one of Detections or Polylines.")
    if declared.read_only:
        raise EnrichError(f"The field {field!r} is read-only; wanted one that may be written. Nothing was changed.")
    path = f"{field}.{kind._LABEL_LIST_FIELD}"
    with said_read_only(dataset):
        for name in words:
            for attribute in (name, original(name)):
                if dataset.get_field(f"{path}.{attribute}") is None:
                    dataset.add_sample_field(f"{path}.{attribute}", fo.StringField)
        found = _update(dataset, path, sample_id, label_id, verdict, words)
    if found is None:
        raise EnrichError(
            f"The label {label_id} of {field!r} is no longer there: it was deleted or replaced by a new run. "
            "Refresh the table and choose another."
        )
    fo.Sample._reload_docs(dataset._sample_collection_name, sample_ids=[sample_id])
    feedback = feedback_of(REVIEWABLE[kind].from_dict(found["label"]), found["filepath"])
    if feedback is not None:
        get_plugins().tell("pam_feedback", feedback=feedback)
    return feedback


def original(name: str) -> str:
    """Where the model's own words are kept when a person changes the text `name`."""
    return f"original_{name}"


def clean(text: str) -> str:
    """A text that the database takes: without lone surrogates and NULs, and without space around it."""
    return text.encode("utf-8", "ignore").decode("utf-8").replace("\0", "").strip()


def checked_text(name: str, text: str) -> str:
    """A text as it can be written. Raises EnrichError."""
    if name not in EDITABLE:
        raise EnrichError(f"Got a text for {name!r}; wanted one of {', '.join(EDITABLE)}.")
    if not isinstance(text, str):
        raise EnrichError(f"Got {text!r} for {name!r}; wanted a text.")
    found = clean(text)
    if name == "label" and not found:
        raise EnrichError("Got an empty label; wanted a word or two. Reject the region if it shows nothing.")
    if len(found) > LONGEST:
        raise EnrichError(f"Got {len(found)} characters for {name!r}; wanted {LONGEST} at most.")
    return found


def _update(
    dataset: fo.Dataset, path: str, sample_id: str, label_id: str, verdict: Verdict, words: Mapping[str, str]
) -> dict[str, Any] | None:
    """One atomic update; the label as it is after it and the path of its picture, or None where it is gone."""
    if not (ObjectId.is_valid(sample_id) and ObjectId.is_valid(label_id)):
        return None
    this = ObjectId(label_id)
    others = {
        "$filter": {
            "input": {"$ifNull": ["$$label.tags", []]},
            "as": "tag",
            "cond": {"$not": {"$in": ["$$tag", list(VERDICTS)]}},
        }
    }
    changes: dict[str, Any] = {"tags": {"$concatArrays": [others, [verdict.value]]}}
    for name, text in words.items():
        now, kept = {"$ifNull": [f"$$label.{name}", ""]}, f"$$label.{original(name)}"
        changes[name] = {"$literal": text}
        changes[original(name)] = {
            "$ifNull": [kept, {"$cond": [{"$eq": [now, {"$literal": text}]}, "$$REMOVE", now]}]
        }
    changed = {"$cond": [{"$eq": ["$$label._id", this]}, {"$mergeObjects": ["$$label", changes]}, "$$label"]}
    found: dict[str, Any] | None = dataset._sample_collection.find_one_and_update(
        {"_id": ObjectId(sample_id), f"{path}._id": this},
        [
            {
                "$set": {
                    path: {"$map": {"input": f"${path}", "as": "label", "in": changed}},
                    "last_modified_at": datetime.now(timezone.utc),
                }
            }
        ],
        projection={
            "filepath": 1,
            "label": {
                "$first": {"$filter": {"input": f"${path}", "as": "label", "cond": {"$eq": ["$$label._id", this]}}}
            },
        },
        return_document=ReturnDocument.AFTER,
    )
    return found


def verdict_of(tags: Collection[str] | None) -> Verdict | None:
    """What the tags of a label say. Of several set by hand, rejected wins over edited, and edited over accepted."""
    order = (Verdict.REJECTED, Verdict.EDITED, Verdict.ACCEPTED)
    return next((verdict for verdict in order if verdict.value in (tags or ())), None)


def judged(view: Collected, field: str) -> Iterator[Feedback | None]:
    """What was said of the labels of a view, read one sample after the other; None as in `feedback_of`."""
    said = fo.ViewField("tags").contains(list(VERDICTS))
    for sample in flat(view).select_fields(field).filter_labels(field, said).iter_samples():
        for label in labels_in(sample[field]):
            yield feedback_of(label, sample.filepath)


def judged_counts(view: Collected, field: str) -> dict[str, int]:
    """How many labels of a view have which tag of a verdict, counted in the database."""
    kind: Any = field_type(view._dataset, field)
    tags = flat(view).count_values(f"{field}.{kind._LABEL_LIST_FIELD}.tags")
    return {name: tags[name] for name in VERDICTS if name in tags}


def feedback_of(label: fo.Detection | fo.Polyline, path: str) -> Feedback | None:
    """A judged label of the picture at `path` as Feedback.

    `region` has the model's own words; `correction` the words as they stand, where the two differ. None where the
    label is not judged, has no mask, or the picture cannot be read.
    """
    verdict = verdict_of(label.tags)
    if verdict is None:
        return None
    try:
        width, height = picture_size(path)
    except PictureError:
        return None
    standing = region_of(label, width, height)
    if standing is None:
        return None
    said = _before(label, standing)
    return Feedback(path, said, verdict, standing if standing != said else None, SOURCE)


def _before(label: fo.Detection | fo.Polyline, region: Region) -> Region:
    """The region with the model's own words in place of a person's."""
    texts = {task: dict(answers) for task, answers in region.texts.items()}
    for name in EDITABLE:
        kept = label.get_attribute_value(original(name), None)
        if kept is None:
            continue
        task, language = ANSWERS[name]
        if kept:
            texts.setdefault(task, {})[language] = kept
        else:
            texts.get(task, {}).pop(language, None)
    return replace(region, texts={task: answers for task, answers in texts.items() if answers})
