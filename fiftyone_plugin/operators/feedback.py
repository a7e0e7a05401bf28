"""Export feedback: the accepted, edited and rejected regions of a view as a file to fine-tune with."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from fiftyone_plugin.checks import FiftyOneError
from fiftyone_plugin.feedback import VERDICTS, check_reviewable, reviewable_fields, reviewed_labels, verdict_counts
from fiftyone_plugin.mongo import SampleCollection, dataset_of
from fiftyone_plugin.operators.base import LabelledOperator, schedule
from fiftyone_plugin.operators.form import Context, choose, notice
from pam_core.types import FEEDBACK_SCHEMA

FIRST_BYTES = f'{{"schema":"{FEEDBACK_SCHEMA}"'.encode()
OUTPUTS = {
    "accepted": "Accepted",
    "edited": "Edited",
    "rejected": "Rejected",
    "left_out": "Left out: no mask, or the picture cannot be read",
}


class ExportFeedback(LabelledOperator):
    """Writes a JSON Lines file of pam_core.types.Feedback."""

    name = "export_feedback"
    label = "Export feedback"
    description = "Write accepted, edited and rejected regions to a file to fine-tune a model with"

    def form(self, inputs: types.Object, ctx: Context) -> None:
        view = ctx.target_view()
        dataset = dataset_of(view)
        fields = reviewable_fields(dataset)
        if not fields:
            raise FiftyOneError(f"The dataset {dataset.name!r} has no field of regions that can be reviewed.")
        field = ctx.params.get("field") or fields[0]
        choose(inputs, "field", {name: name for name in fields}, label="Regions")
        inputs.str("path", label="File", default=str(default_path(dataset, field)))
        if field not in fields:
            raise FiftyOneError(f"Got the field {field!r}; wanted one of {', '.join(fields)}.")
        counts = verdict_counts(view, field)
        notice(inputs, "counts", ", ".join(f"{counts.get(name, 0)} {name}" for name in VERDICTS))
        path = checked_path(ctx.params.get("path") or default_path(dataset, field))
        if path.exists():
            notice(inputs, "replaced", f"{path} is there already and will be replaced.")
        if not counts:
            raise FiftyOneError(nothing_reviewed(field))

    def execute(self, ctx: Context) -> dict[str, Any]:
        view = ctx.target_view()
        field = ctx.params.get("field") or next(iter(reviewable_fields(dataset_of(view))), "regions")
        return export_feedback(view, field, ctx.params.get("path"))

    def resolve_output(self, ctx: Context) -> types.Property:
        outputs = types.Object()
        outputs.str("path", label="File")
        for name, label in OUTPUTS.items():
            if name in VERDICTS or ctx.results.get(name):
                outputs.int(name, label=label)
        return types.Property(outputs, view=types.View(label="Export feedback: done"))

    def __call__(
        self, view: SampleCollection, field: str = "regions", path: str | Path | None = None, delegate: bool = False
    ) -> Any:
        """Write the reviewed regions of `field` in a dataset or a view to the file `path`.

        Returns the counts, or the delegated operation.
        """
        if delegate:
            return schedule(self, view, {"field": field, "path": str(path) if path is not None else None})
        return export_feedback(view, field, path)


def default_path(dataset: fo.Dataset, field: str) -> Path:
    """The file without a choice, in the user's home."""
    return Path.home() / f"{dataset.slug}-{field}-feedback.jsonl"


def checked_path(path: str | Path) -> Path:
    """The path of a file that can be written or replaced. Raises FiftyOneError."""
    try:
        target = Path(str(path)).expanduser()
        problem = _problem(target)
    except (OSError, RuntimeError, ValueError) as error:  # an unknown ~user, a name too long, a NUL
        raise FiftyOneError(f"{path} cannot be used ({error}); choose another file.") from error
    if problem:
        raise FiftyOneError(problem)
    return target


def _problem(path: Path) -> str | None:
    """Why a file cannot go to this path, or None."""
    if path.is_dir():
        return f"{path} is a folder; wanted a file, such as {path / 'feedback.jsonl'}."
    if not path.parent.is_dir():
        return f"There is no folder {path.parent}; make it, or choose another file."
    if not os.access(path.parent, os.W_OK):
        return f"The folder {path.parent} cannot be written; choose another or mend its permissions."
    try:
        with path.open("rb") as file:
            start = file.read(len(FIRST_BYTES))
    except FileNotFoundError:
        return None
    if start not in (b"", FIRST_BYTES):
        return f"{path} is something else than exported feedback; choose another file."
    return None


def nothing_reviewed(field: str) -> str:
    return f"No region of {field!r} is accepted, edited or rejected in this view; review some first."


def export_feedback(view: SampleCollection, field: str, path: str | Path | None = None) -> dict[str, Any]:
    """Write the reviewed regions of a view, one a line; the file appears whole or not at all.

    Returns the path and how many were accepted, edited, rejected and left out. Raises FiftyOneError.
    """
    dataset = dataset_of(view)
    target = checked_path(path or default_path(dataset, field))
    check_reviewable(dataset, field)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    counts: Counter[str] = Counter()
    try:
        with partial.open("wb") as file:
            for feedback in reviewed_labels(view, field):
                counts[feedback.verdict.value if feedback else "left_out"] += 1
                if feedback:
                    file.write(feedback.to_line().encode())
            if not counts:
                raise FiftyOneError(nothing_reviewed(field))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        raise FiftyOneError(
            f"{target} cannot be written ({error.strerror or error}); nothing was changed. Choose another file."
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return {"path": str(target), "field": field, **{name: counts[name] for name in OUTPUTS}}
