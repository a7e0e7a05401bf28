"""Regions as FiftyOne labels and back: the mask, the label and every text on one and the same Detection or Polyline.

A label is short; what else is known is in attributes that can be filtered:

    label, confidence                            the label in English, and how sure the model is of it
    label_zh                                     the label in Chinese
    explanation, caption, detailed_caption, text each also with _zh
    model                                        which model said so, e.g. "lite 3"
    prompt                                       what was asked, as JSON; "mask" where it was a mask
    predicted_iou, stability, presence           the model's own estimates of its mask
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import fiftyone as fo
import fiftyone.core.utils as fou
import numpy as np

from pam_core.errors import PromptError
from pam_core.masks import BoolArray, Mask
from pam_core.tasks import BUILTIN_TASKS
from pam_core.types import Language, ModelRef, Prompt, Region

Label = fo.Detection | fo.Keypoint | fo.Polyline
ATTRIBUTES = {"brief": "caption", "detailed": "detailed_caption"}
"""What tasks are called as attributes, where not by their own name."""
SCORES = ("predicted_iou", "stability", "presence")
DOCUMENT_BYTES = 12 * 2**20
"""Masks beyond this go to files: MongoDB takes documents of 16 MB, and a sample holds more than its masks."""
TOLERANCE = 1.5
"""How far, in pixels, a polyline may be from the edge of its mask."""


def attribute(task: str, language: str) -> str:
    """What an answer is called on a label: `caption`, `caption_zh`."""
    name = ATTRIBUTES.get(task, task)
    return name if language == "en" else f"{name}_{language}"


ANSWERS = {
    attribute(task.name, language.value): (task.name, language.value)
    for task in BUILTIN_TASKS
    for language in Language
}
"""The attributes that hold answers to the built-in tasks, with the task and the language."""


@dataclass(frozen=True)
class Geometry:
    """How masks are kept: `mask` in the database, `mask_path` as files in `folder`, `polyline` as outlines.

    Masks too large for a document go to files too.
    """

    kind: str = "mask"
    folder: Path | None = None

    def labels(self, regions: Sequence[Region], sample_id: str) -> fo.Detections | fo.Polylines:
        """The labels of one sample; regions whose mask is empty are left out."""
        found = [region for region in regions if region.mask.area]
        detections = [detection_of(region) for region in found]
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
        partial = path.with_suffix(".part")
        partial.write_bytes(png.tobytes())
        partial.replace(path)
        return path


def _document_bytes(detections: Sequence[fo.Detection]) -> int:
    """What the masks take in the database; looked at closely only where their pixels alone could be too many."""
    pixels = sum(detection.mask.size for detection in detections)
    if pixels <= DOCUMENT_BYTES:
        return pixels
    return sum(len(fou.serialize_numpy_array(detection.mask)) for detection in detections)


def detection_of(region: Region) -> fo.Detection:
    """A region as a Detection with its mask cropped to its box, and every text as an attribute."""
    x1, y1, x2, y2 = region.box
    width, height = region.mask.width, region.mask.height
    label = region.label
    return fo.Detection(
        label=label,
        bounding_box=[x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height],
        mask=region.mask.cropped,
        confidence=region.scores.get("label"),
        index=region.track_id,
        **dict(attributes_of(region)),
    )


def attributes_of(region: Region) -> Iterator[tuple[str, str | float]]:
    """Everything a region says beside its mask, box and label, by attribute name."""
    for task, answers in region.texts.items():
        for language, answer in answers.items():
            if (task, language) != ("label", "en"):
                yield attribute(task, language), answer
    for name in SCORES:
        value = getattr(region, name)
        if value is not None:
            yield name, float(value)
    yield "model", f"{region.model.name} {region.model.revision}"
    if region.prompt is not None:
        yield "prompt", prompt_text(region.prompt)


def prompt_text(prompt: Prompt) -> str:
    """A prompt in one line of JSON, its mask named only."""
    said = prompt.to_json()
    if "mask" in said:
        said["mask"] = "mask"
    return json.dumps(said)


def prompt_said(text: object) -> Prompt | None:
    """What `prompt_text` wrote as a prompt again; None where it cannot be told, as for a mask that is only named."""
    try:
        said = json.loads(text) if isinstance(text, str) else None
        return Prompt.from_json(said) if isinstance(said, dict) and "mask" not in said else None
    except (ValueError, TypeError, KeyError, PromptError):
        return None


def mask_of(label: fo.Detection | fo.Polyline, width: int, height: int) -> Mask | None:
    """The mask of a label in a picture of this size; None for a box and for a line that is not closed."""
    if isinstance(label, fo.Polyline):
        return _filled(label, width, height) if label.closed or label.filled else None
    if not label.has_mask:
        return None
    cropped = np.asarray(label.get_mask()) > 0
    x1, y1, x2, y2 = pixel_box(label, width, height)
    left, top, right, bottom = round(x1), round(y1), round(x2), round(y2)
    whole = np.zeros((height, width), dtype=bool)
    if right > left and bottom > top:
        if cropped.shape != (bottom - top, right - left):
            resized = cv2.resize(
                cropped.astype(np.uint8), (right - left, bottom - top), interpolation=cv2.INTER_NEAREST
            )
            cropped = resized.astype(bool)
        whole[top:bottom, left:right] = cropped
    return Mask.from_array(whole)


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


def pixel_box(label: fo.Detection, width: int, height: int) -> tuple[float, float, float, float]:
    """The box of a Detection in pixels, x1, y1, x2, y2, cut at the edges of the picture."""
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
        prompt=prompt_said(label.get_attribute_value("prompt", None)),
        **{score: label.get_attribute_value(score, None) for score in SCORES},
    )
