"""Reviewing regions: labels page by page, and people's verdicts on them as tags, where FiftyOne itself shows them.

    tags                    one of accepted, edited and rejected, beside any other tags of the label
    original_label, ...     the model's own text where a person has changed it, kept from the first change on

A tag set by hand in the App counts the same. Each verdict is one atomic update of one sample: two people who review
labels of one sample at the same time do not undo each other's work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import fiftyone as fo

from fiftyone_plugin import mongo
from fiftyone_plugin.checks import FiftyOneError, check_writable
from fiftyone_plugin.convert import ANSWERS, labels_in, region_of
from fiftyone_plugin.mongo import LabelQuery, SampleCollection, all_slices, field_type, label_path
from fiftyone_plugin.run import ResultFields
from pam_core.errors import PictureError
from pam_core.media.images import picture_size
from pam_core.types import Feedback, Region, Verdict
from pam_plugins import plugins

SOURCE = "fiftyone"
EDITABLE = ("label", "caption", "label_zh", "caption_zh")
"""The texts of a label that a person may edit."""
VERDICTS = tuple(verdict.value for verdict in Verdict)
MAX_CHARACTERS = 10_000
"""The longest text a person may write."""
REVIEWABLE = (fo.Detections, fo.Polylines)
"""The types of fields whose labels can be reviewed."""
PAGE = 50
"""Labels of a page."""
MAX_SEARCH = 200
"""Characters of a search; the rest is ignored."""
NOT_REVIEWED = "open"
REVIEWS = ("all", NOT_REVIEWED, *VERDICTS)


def check_reviewable(dataset: fo.Dataset, field: str) -> None:
    """Raise FiftyOneError unless the labels of `field` can be reviewed."""
    if field_type(dataset, field) not in REVIEWABLE:
        raise FiftyOneError(f"Got the field {field!r}; wanted one of Detections or Polylines.")


def review(
    dataset: fo.Dataset,
    field: str,
    sample_id: str,
    label_id: str,
    verdict: Verdict,
    texts: Mapping[str, str] | None = None,
) -> Feedback | None:
    """Write a person's verdict on one label, and announce it to the plugins.

    `texts` has the edited texts by attribute (see EDITABLE). Returns what was announced; None where the label has no
    mask or its picture cannot be read, which is not announced. Raises FiftyOneError, and changes nothing, where the
    label is gone, a text cannot be used or the field may not be written.
    """
    edited = {name: checked_text(name, text) for name, text in (texts or {}).items()}
    check_reviewable(dataset, field)
    if dataset.get_field(field).read_only:
        raise FiftyOneError(f"The field {field!r} is read-only; wanted one that may be written. Nothing was changed.")
    with check_writable(dataset):
        for name in edited:
            for attribute in (name, original(name)):
                path = f"{label_path(dataset, field)}.{attribute}"
                if dataset.get_field(path) is None:
                    dataset.add_sample_field(path, fo.StringField)
        changes = {name: (original(name), text) for name, text in edited.items()}
        reviewed = mongo.review_label(dataset, field, sample_id, label_id, verdict.value, VERDICTS, changes)
    if reviewed is None:
        raise FiftyOneError(
            f"The label {label_id} of {field!r} is no longer there: it was deleted or replaced by a new run. "
            "Refresh the table and choose another."
        )
    feedback = feedback_of(*reviewed)
    if feedback is not None:
        plugins.announce("pam_feedback", feedback=feedback)
    return feedback


def original(name: str) -> str:
    """The attribute that keeps the model's own text for `name`."""
    return f"original_{name}"


def clean(text: str) -> str:
    """A text that the database takes: without lone surrogates and NULs, and without space around it."""
    return text.encode("utf-8", "ignore").decode("utf-8").replace("\0", "").strip()


def checked_text(name: str, text: str) -> str:
    """A cleaned text for the attribute `name`. Raises FiftyOneError."""
    if name not in EDITABLE:
        raise FiftyOneError(f"Got a text for {name!r}; wanted one of {', '.join(EDITABLE)}.")
    if not isinstance(text, str):
        raise FiftyOneError(f"Got {text!r} for {name!r}; wanted a text.")
    cleaned = clean(text)
    if name == "label" and not cleaned:
        raise FiftyOneError("Got an empty label; wanted a word or two. Reject the region if it shows nothing.")
    if len(cleaned) > MAX_CHARACTERS:
        raise FiftyOneError(f"Got {len(cleaned)} characters for {name!r}; wanted {MAX_CHARACTERS} at most.")
    return cleaned


def verdict_of(tags: Collection[str] | None) -> Verdict | None:
    """The verdict among a label's tags. Of several set by hand, rejected wins over edited, edited over accepted."""
    order = (Verdict.REJECTED, Verdict.EDITED, Verdict.ACCEPTED)
    return next((verdict for verdict in order if verdict.value in (tags or ())), None)


def reviewed_labels(view: SampleCollection, field: str) -> Iterator[Feedback | None]:
    """The feedback of each reviewed label of a view, one sample after the other; None as in `feedback_of`."""
    with_verdict = fo.ViewField("tags").contains(list(VERDICTS))
    for sample in all_slices(view).select_fields(field).filter_labels(field, with_verdict).iter_samples():
        for label in labels_in(sample[field]):
            yield feedback_of(label, sample.filepath)


def verdict_counts(view: SampleCollection, field: str) -> dict[str, int]:
    """How many labels of a view have each verdict's tag, counted in the database."""
    tags = all_slices(view).count_values(f"{label_path(mongo.dataset_of(view), field)}.tags")
    return {name: tags[name] for name in VERDICTS if name in tags}


def feedback_of(label: fo.Detection | fo.Polyline, path: str) -> Feedback | None:
    """A reviewed label of the picture at `path` as Feedback.

    `region` has the model's own texts; `correction` the current ones, where the two differ. None where the label has
    no verdict or no mask, or the picture cannot be read.
    """
    verdict = verdict_of(label.tags)
    if verdict is None:
        return None
    try:
        current = region_of(label, *picture_size(path))
    except PictureError:
        return None
    if current is None:
        return None
    first = _with_original_texts(label, current)
    return Feedback(path, first, verdict, current if current != first else None, SOURCE)


def _with_original_texts(label: fo.Detection | fo.Polyline, region: Region) -> Region:
    """The region with the model's own texts in place of a person's."""
    texts = {task: dict(answers) for task, answers in region.texts.items()}
    for name in EDITABLE:
        text = label.get_attribute_value(original(name), None)
        task, language = ANSWERS[name]
        if text:
            texts.setdefault(task, {})[language] = text
        elif text is not None:
            texts.get(task, {}).pop(language, None)
    return replace(region, texts={task: answers for task, answers in texts.items() if answers})


@dataclass(frozen=True)
class LabelRow:
    """One label in a table. `texts` are the editable ones by attribute; `seconds` is what its picture took."""

    sample_id: str
    label_id: str
    texts: dict[str, str]
    confidence: float | None
    model: str
    seconds: float | None
    review: str


def reviewable_fields(dataset: fo.Dataset) -> list[str]:
    """The fields of Detections and Polylines whose labels name the model that made them."""
    names = [name for name in dataset.get_field_schema() if field_type(dataset, name) in REVIEWABLE]
    return [name for name in names if dataset.get_field(f"{label_path(dataset, name)}.model") is not None]


def find_rows(
    view: SampleCollection,
    field: str,
    search: str = "",
    review: str = "all",
    samples: Sequence[str] | None = None,
    page: int = 0,
) -> tuple[list[LabelRow], bool]:
    """A page (from 0) of the labels of `field` in the view's order, and whether there are more. Masks are not read.

    `search` is a part of one of the label's texts, `review` one of REVIEWS; `samples` limits them to these ids.
    """
    query = LabelQuery(
        search=clean(search)[:MAX_SEARCH],
        tag=review if review in VERDICTS else "",
        without_tags=VERDICTS if review == NOT_REVIEWED else (),
        skip=page * PAGE,
        limit=PAGE + 1,
    )
    view = all_slices(view) if samples is None else all_slices(view).select(list(samples))
    rows = [_row(found) for found in mongo.find_labels(view, field, ANSWERS, query, ResultFields(field).seconds)]
    return rows[:PAGE], len(rows) > PAGE


def _row(found: Mapping[str, Any]) -> LabelRow:
    label = found["label"]
    verdict = verdict_of(label.get("tags"))
    return LabelRow(
        sample_id=str(found["_id"]),
        label_id=str(label["_id"]),
        texts={name: label[name] for name in EDITABLE if isinstance(label.get(name), str)},
        confidence=label.get("confidence"),
        model=label.get("model") or "",
        seconds=found.get("value"),
        review=verdict.value if verdict else "",
    )
