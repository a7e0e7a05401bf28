"""FiftyOne labels from regions and back, and prompts from labels.

A region is one Detection or Polyline: mask, label, and every text as an attribute that can be filtered.

    label, confidence                            the label in English and its score
    label_zh                                     the label in Chinese
    explanation, caption, detailed_caption, text each also with _zh
    model                                        the model's name and revision, e.g. "lite 3"
    prompt                                       the prompt as JSON; "mask" in place of a mask
    predicted_iou, stability, presence           the mask decoder's and the tracker's scores
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import fiftyone as fo
import fiftyone.core.utils as fou
import numpy as np

from fiftyone_plugin.mongo import list_name
from pam_core.errors import PromptError
from pam_core.masks import BoolArray, Box, Mask
from pam_core.tasks import BUILTIN_TASKS
from pam_core.types import Language, ModelRef, Prompt, Region, Texts
from pam_plugins.files import write_whole

Label = Any
"""A Detection, Keypoint or Polyline."""
PROMPT_TYPES = (fo.Detections, fo.Keypoints, fo.Polylines)
ATTRIBUTES = {"brief": "caption", "detailed": "detailed_caption"}
"""Attribute names of tasks, where not the task's own name."""
SCORES = ("predicted_iou", "stability", "presence")
DOCUMENT_BYTES = 12 * 2**20
"""Larger masks of a sample go to files: MongoDB takes documents of 16 MB, and a sample holds more than its masks."""
TOLERANCE = 1.5
"""The largest distance in pixels of a polyline from the edge of its mask."""


def attribute(task: str, language: str) -> str:
    """The attribute of an answer: `caption`, `caption_zh`."""
    name = ATTRIBUTES.get(task, task)
    return name if language == "en" else f"{name}_{language}"


ANSWERS = {
    attribute(task.name, language.value): (task.name, language.value)
    for task in BUILTIN_TASKS
    for language in Language
}
"""Task and language of each attribute that holds an answer to a built-in task."""


@dataclass(frozen=True)
class Geometry:
    """How masks are stored: `mask` in the database, `mask_path` as files in `folder`, `polyline` as outlines.

    Masks too large for a document go to files too.
    """

    kind: str = "mask"
    folder: Path | None = None

    def labels(self, regions: Iterable[Region], sample_id: str) -> fo.Detections | fo.Polylines:
        """The labels of one sample; regions with an empty mask are left out."""
        detections = [detection_of(region) for region in regions if region.mask.area]
        if self.kind == "polyline":
            return fo.Polylines(polylines=[detection.to_polyline(TOLERANCE) for detection in detections])
        if self.kind == "mask_path" or _document_bytes(detections) > DOCUMENT_BYTES:
            for index, detection in enumerate(detections):
                detection.mask_path = str(self._write(detection.mask, f"{sample_id}_{detection.id}", index))
                detection.mask = None
        return fo.Detections(detections=detections)

    def _write(self, mask: BoolArray, name: str, index: int) -> Path:
        """Write a mask as a PNG, whole or not at all."""
        if self.folder is None:
            raise ValueError("Got no folder for the masks; wanted one.")
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}_{index}.png"
        written, png = cv2.imencode(".png", mask.astype(np.uint8) * 255)
        if not written:
            raise OSError(f"{path}: the mask of {mask.shape} could not be encoded.")
        write_whole(path, png.tobytes())
        return path


def _document_bytes(detections: Sequence[fo.Detection]) -> int:
    """Bytes of the masks in the database; they are compressed only where their pixels alone could be too many."""
    pixels = sum(detection.mask.size for detection in detections)
    if pixels <= DOCUMENT_BYTES:
        return pixels
    return sum(len(fou.serialize_numpy_array(detection.mask)) for detection in detections)


def detection_of(region: Region) -> fo.Detection:
    """A Detection with the region's mask cropped to its box, and every text as an attribute."""
    x1, y1, x2, y2 = region.box
    width, height = region.mask.width, region.mask.height
    return fo.Detection(
        label=region.label,
        bounding_box=[x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height],
        mask=region.mask.cropped,
        confidence=region.scores.get("label"),
        index=region.track_id,
        **text_attributes(region.texts),
        **{name: float(value) for name in SCORES if (value := getattr(region, name)) is not None},
        model=model_name(region.model),
        **({"prompt": prompt_to_text(region.prompt)} if region.prompt is not None else {}),
    )


def text_attributes(texts: Texts) -> dict[str, str]:
    """Texts by attribute, but for the English label, which is a label's own."""
    named = {attribute(task, code): text for task, answers in texts.items() for code, text in answers.items()}
    return {name: text for name, text in named.items() if name != "label"}


def model_name(model: ModelRef) -> str:
    """A model's name and revision, as labels and runs have them."""
    return f"{model.name} {model.revision}"


def prompt_to_text(prompt: Prompt) -> str:
    """A prompt as one line of JSON, with "mask" in place of a mask."""
    data = prompt.to_json()
    return json.dumps({**data, "mask": "mask"} if "mask" in data else data)


def prompt_from_text(text: object) -> Prompt | None:
    """The prompt that `prompt_to_text` wrote; None for one with a mask, and for anything else."""
    try:
        data = json.loads(text) if isinstance(text, str) else None
        return Prompt.from_json(data) if isinstance(data, dict) and "mask" not in data else None
    except (ValueError, TypeError, KeyError, PromptError):
        return None


def mask_of(label: fo.Detection | fo.Polyline, width: int, height: int) -> Mask | None:
    """A label's mask in a picture of this size; None for a box and for a line that is not closed."""
    if isinstance(label, fo.Polyline):
        return _filled(label, width, height) if label.closed or label.filled else None
    if not label.has_mask:
        return None
    cropped = np.asarray(label.get_mask()) > 0
    left, top, right, bottom = (round(edge) for edge in pixel_box(label, width, height))
    canvas = np.zeros((height, width), dtype=bool)
    if right > left and bottom > top:
        if cropped.shape != (bottom - top, right - left):
            size = (right - left, bottom - top)
            cropped = cv2.resize(cropped.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
        canvas[top:bottom, left:right] = cropped
    return Mask.from_array(canvas)


def _filled(polyline: fo.Polyline, width: int, height: int) -> Mask:
    """The inside of the rings; a ring within another is a hole."""
    canvas = np.zeros((height, width), dtype=np.uint8)
    rings = [
        np.round(np.array(ring, dtype=np.float64) * (width, height) - 0.5).astype(np.int32)
        for ring in polyline.points
        if len(ring) > 2
    ]
    if rings:
        cv2.fillPoly(canvas, rings, 1)
    return Mask.from_array(canvas.astype(bool))


def pixel_box(label: fo.Detection, width: int, height: int) -> Box:
    """The box of a Detection in pixels, xyxy, cut at the edges of the picture."""
    x, y, w, h = label.bounding_box
    left, top = max(0.0, x * width), max(0.0, y * height)
    return left, top, min(float(width), (x + w) * width), min(float(height), (y + h) * height)


def region_of(label: fo.Detection | fo.Polyline, width: int, height: int) -> Region | None:
    """A label as a region of a picture of this size, its texts by task and language; None where it has no mask."""
    mask = mask_of(label, width, height)
    if mask is None or mask.area == 0:
        return None
    texts: dict[str, dict[str, str]] = {"label": {"en": label.label}} if label.label else {}
    for name, value in label.iter_attributes():
        if name in ANSWERS and isinstance(value, str):
            task, language = ANSWERS[name]
            texts.setdefault(task, {})[language] = value
    name, _, revision = str(label.get_attribute_value("model", "")).partition(" ")
    return Region(
        mask=mask,
        model=ModelRef(name or "unknown", revision),
        texts=texts,
        scores={"label": label.confidence} if label.confidence is not None else {},
        track_id=label.index,
        prompt=prompt_from_text(label.get_attribute_value("prompt", None)),
        **{score: label.get_attribute_value(score, None) for score in SCORES},
    )


def labels_in(value: fo.Label | None) -> list[Label]:
    """The labels in a Detections, Keypoints or Polylines value; none in None."""
    return list(value[list_name(value)]) if value is not None else []


def prompt_of(label: Label, width: int, height: int) -> Prompt:
    """A label as a prompt: its box and mask, its outline or its clicks. Raises PromptError.

    The points of a Keypoint are clicks on one object; missing ones (NaN) are left out. An open Polyline is a click on
    each of its vertices.
    """
    if isinstance(label, fo.Keypoint):
        return Prompt(points=_clicks(label.points, width, height))
    mask = mask_of(label, width, height)
    mask = mask if mask is not None and mask.area else None
    if isinstance(label, fo.Detection):
        return Prompt(box=pixel_box(label, width, height), mask=mask)
    if mask is not None:
        return Prompt(mask=mask)
    return Prompt(points=_clicks([point for ring in label.points for point in ring], width, height))


def _clicks(points: Sequence[tuple[float, float]], width: int, height: int) -> tuple[tuple[float, float], ...]:
    """Relative points in pixels; one on the right or lower edge is on the last pixel."""
    return tuple(
        (
            min(x * width, width - 0.5) if x <= 1 else x * width,
            min(y * height, height - 0.5) if y <= 1 else y * height,
        )
        for x, y in points
        if not (math.isnan(x) or math.isnan(y))
    )
