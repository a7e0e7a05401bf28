"""Export feedback: the accepted, edited and rejected regions of a view as a file to learn from."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types

from fiftyone_plugin.checks import EnrichError, field_type
from fiftyone_plugin.dataset import Collected
from fiftyone_plugin.feedback import REVIEWABLE, VERDICTS, judged, judged_counts
from fiftyone_plugin.operators.form import Context, choices, say, schedule
from fiftyone_plugin.rows import reviewable_fields
from pam_core.types import FEEDBACK_SCHEMA

FIRST_BYTES = f'{{"schema":"{FEEDBACK_SCHEMA}"'.encode()
OUTPUTS = {
    "accepted": "Accepted",
    "edited": "Edited",
    "rejected": "Rejected",
    "left_out": "Left out: no mask, or the picture cannot be read",
}


class ExportFeedback(foo.Operator):
    """A JSON Lines file of pam_core.types.Feedback."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="export_feedback",
            label="Export feedback",
            description="Write accepted, edited and rejected regions to a file to fine-tune a model with",
            icon="/assets/regions.svg",
            dynamic=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx: Context) -> types.Property:
        inputs = types.Object()
        try:
            view = ctx.target_view()
            fields = reviewable_fields(view._dataset)
            if not fields:
                raise EnrichError(f"The dataset {view._dataset.name!r} has no field of regions that can be reviewed.")
            field = ctx.params.get("field") or fields[0]
            inputs.enum(
                "field", fields, default=fields[0], label="Regions", view=choices({name: name for name in fields})
            )
            inputs.str("path", label="File", default=str(default_path(view._dataset, field)))
            if field not in fields:
                raise EnrichError(f"Got the field {field!r}; wanted one of {', '.join(fields)}.")
            found = judged_counts(view, field)
            say(inputs, "counts", ", ".join(f"{found.get(name, 0)} {name}" for name in VERDICTS))
            path = checked_path(ctx.params.get("path") or default_path(view._dataset, field))
            if path.exists():
                say(inputs, "replaced", f"{path} is there already and will be replaced.")
            if not found:
                raise EnrichError(nothing(field))
        except EnrichError as error:
            say(inputs, "misuse", str(error), error=True)
        return types.Property(inputs, view=types.View(label=self.config.label))

    def execute(self, ctx: Context) -> dict[str, Any]:
        view = ctx.target_view()
        field = ctx.params.get("field") or next(iter(reviewable_fields(view._dataset)), "regions")
        return export_feedback(view, field, ctx.params.get("path") or default_path(view._dataset, field))

    def resolve_output(self, ctx: Context) -> types.Property:
        outputs = types.Object()
        outputs.str("path", label="File")
        for name, label in OUTPUTS.items():
            if name in VERDICTS or ctx.results.get(name):
                outputs.int(name, label=label)
        return types.Property(outputs, view=types.View(label="Export feedback: done"))

    def __call__(
        self, view: Collected, field: str = "regions", path: str | Path | None = None, delegate: bool = False
    ) -> Any:
        """Write the judged regions of `field` in a dataset or a view to the file `path`.

        Returns the counts, or the delegated operation.
        """
        if delegate:
            return schedule(self, view, {"field": field, "path": str(path) if path is not None else None})
        return export_feedback(view, field, path or default_path(view._dataset, field))


def default_path(dataset: fo.Dataset, field: str) -> Path:
    """Where the file goes that nobody named."""
    return Path.home() / f"{dataset.slug}-{field}-feedback.jsonl"


def checked_path(path: str | Path) -> Path:
    """The path of a file that can be written or replaced. Raises EnrichError."""
    try:
        found = Path(str(path)).expanduser()
        wrong = _wrong(found)
    except (OSError, RuntimeError, ValueError) as error:  # an unknown ~user, a name too long, a NUL
        raise EnrichError(f"{path} cannot be used ({error}); choose another file.") from error
    if wrong:
        raise EnrichError(wrong)
    return found


def _wrong(path: Path) -> str | None:
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


def nothing(field: str) -> str:
    return f"No region of {field!r} is accepted, edited or rejected in this view; review some first."


def export_feedback(view: Collected, field: str, path: str | Path) -> dict[str, Any]:
    """Write the judged regions of a view, one a line; the file appears whole or not at all.

    Returns the path and the counts of what was accepted, edited, rejected and left out. Raises EnrichError.
    """
    target = checked_path(path)
    if field_type(view._dataset, field) not in REVIEWABLE:
        raise EnrichError(f"Got the field {field!r}; wanted one of Detections or Polylines.")
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    counts: Counter[str] = Counter()
    try:
        with partial.open("wb") as file:
            for feedback in judged(view, field):
                counts[feedback.verdict.value if feedback else "left_out"] += 1
                if feedback:
                    file.write(feedback.to_line().encode())
            if not counts:
                raise EnrichError(nothing(field))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        raise EnrichError(
            f"{target} cannot be written ({error.strerror or error}); nothing was changed. Choose another file."
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return {"path": str(target), "field": field, **{name: counts[name] for name in OUTPUTS}}
