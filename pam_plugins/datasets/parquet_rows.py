"""Rows as Parquet has them: one a picture, the regions as a list. No timings, which differ between runs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pam_core.types import ModelRef, Perception, Region
from pam_plugins.datasets.contracts import Result

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.string()),
        ("prompts", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("model", pa.string()),
        ("revision", pa.string()),
        ("run", pa.string()),
        ("error", pa.string()),
        (
            "regions",
            pa.list_(
                pa.struct(
                    [
                        ("label", pa.string()),
                        ("score", pa.float64()),
                        ("box", pa.list_(pa.float64())),
                        ("area", pa.int64()),
                        ("predicted_iou", pa.float64()),
                        ("region", pa.string()),
                    ]
                )
            ),
        ),
    ]
)
"""`prompts` is the JSON list of the prompts, null for everything, [] where it could not be read. `box` is xyxy in
pixels, `score` the confidence in the label, `region` the whole region as JSON, from which it comes back unchanged."""


def to_table(results: Sequence[Result]) -> pa.Table:
    """The results as a table of `SCHEMA`."""
    return pa.Table.from_pylist([_to_record(result) for result in results], SCHEMA)


def _to_record(result: Result) -> dict[str, Any]:
    job, perception = result.job, result.perception
    prompts = None if not job.prompts and job.error is None else [prompt.to_json() for prompt in job.prompts]
    return {
        "id": escaped(job.id),
        "image": escaped(perception.image),
        "prompts": None if prompts is None else json.dumps(prompts),
        "width": perception.width,
        "height": perception.height,
        "model": escaped(perception.model.name),
        "revision": escaped(perception.model.revision),
        "run": escaped(perception.run),
        "error": None if perception.error is None else escaped(perception.error),
        "regions": [_to_struct(region) for region in perception.regions],
    }


def _to_struct(region: Region) -> dict[str, Any]:
    return {
        "label": None if region.label is None else escaped(region.label),
        "score": region.scores.get("label"),
        "box": list(region.box),
        "area": region.mask.area,
        "predicted_iou": region.predicted_iou,
        "region": json.dumps(region.to_json(), ensure_ascii=True, separators=(",", ":"), allow_nan=False),
    }


def to_perception(record: Mapping[str, Any]) -> Perception:
    """The perception of a row. Raises SchemaError for regions of another version.

    The model's description is in the regions only, and timings are not kept.
    """
    return Perception(
        image=unescaped(record["image"]),
        width=record["width"],
        height=record["height"],
        model=ModelRef(unescaped(record["model"]), unescaped(record["revision"])),
        regions=tuple(Region.from_json(json.loads(each["region"])) for each in record["regions"]),
        run=unescaped(record["run"]),
        error=None if record["error"] is None else unescaped(record["error"]),
    )


def escaped(text: str) -> str:
    """Text that Parquet can hold: file names that are not UTF-8 have characters that it cannot."""
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def unescaped(text: str) -> str:
    """What `escaped` was given."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)


_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPE = re.compile(r"\\u(d[89a-f][0-9a-f]{2})")
