"""What goes in and what comes out: prompts, regions, perceptions. Plain frozen values; numpy only, no torch.

Coordinates are pixels of the original picture (after its EXIF orientation), x to the right, y down. Everything here
converts to JSON and back without loss; the schema names carry a version that changes when a field changes meaning.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pam_core.errors import MaskError, PromptError, SchemaError
from pam_core.masks import Box, Mask

if TYPE_CHECKING:
    import supervision

REGION_SCHEMA = "pam.region/1"
PERCEPTION_SCHEMA = "pam.perception/1"
FEEDBACK_SCHEMA = "pam.feedback/1"

Picture = npt.NDArray[np.uint8]
"""An RGB picture (height, width, 3), upright."""

Texts = Mapping[str, Mapping[str, str]]
"""Answers by task name, then by language code: `{"label": {"en": "tabby cat"}}`."""


class Language(str, Enum):
    """The languages a model can answer in, by their ISO 639-1 code."""

    EN = "en"
    ZH = "zh"


@dataclass(frozen=True)
class Task:
    """One thing to ask about a region.

    `questions` holds the exact words put to a language model, by language code; a model without a language model
    (such as `lite`) answers the task by its `name` and ignores them.
    """

    name: str
    description: str
    questions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prompt:
    """Where to look: points (label 1 foreground, 0 background), a box xyxy, a mask, or several of these together.

    What can be checked without the picture is checked on construction, the rest by `check(width, height)`; both
    raise PromptError.
    """

    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    box: Box | None = None
    mask: Mask | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", tuple(_pair(point) for point in self.points))
        labels = tuple(self.labels) if len(self.labels) else (1,) * len(self.points)
        object.__setattr__(self, "labels", labels)
        if not self.points and self.box is None and self.mask is None:
            raise PromptError("Got an empty prompt; wanted at least one point, a box or a mask.")
        if len(labels) != len(self.points):
            raise PromptError(f"Got {len(self.points)} points and {len(labels)} labels; wanted one label per point.")
        if any(label not in (0, 1) for label in labels):
            raise PromptError(f"Got point labels {labels}; wanted 1 (foreground) or 0 (background).")
        object.__setattr__(self, "labels", tuple(int(label) for label in labels))
        if self.points and self.box is None and self.mask is None and 1 not in labels:
            raise PromptError("Got background points only; wanted at least one foreground point, a box or a mask.")
        if self.box is not None:
            object.__setattr__(self, "box", _checked_box(self.box))
        if self.mask is not None and self.mask.area == 0:
            raise PromptError("Got an empty mask; wanted a mask with at least one pixel set.")

    @classmethod
    def at(cls, x: float, y: float) -> Prompt:
        """One foreground click."""
        return cls(points=((x, y),))

    @classmethod
    def from_mask(cls, array: npt.NDArray[Any]) -> Prompt:
        """A boolean mask (H, W) of the picture's size."""
        try:
            return cls(mask=Mask.from_array(array))
        except MaskError as error:
            raise PromptError(str(error)) from error

    def check(self, width: int, height: int) -> None:
        """Raise PromptError unless this prompt fits a picture of `width` x `height` pixels."""
        for x, y in self.points:
            if not (0 <= x < width and 0 <= y < height):
                raise PromptError(
                    f"Got the point ({x:g}, {y:g}) outside the picture; wanted 0 <= x < {width} and "
                    f"0 <= y < {height}. Coordinates are pixels of the original picture, x first."
                )
        if self.box is not None:
            x1, y1, x2, y2 = self.box
            if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
                raise PromptError(
                    f"Got the box ({x1:g}, {y1:g}, {x2:g}, {y2:g}) reaching outside the picture; "
                    f"wanted it within 0, 0, {width}, {height} (x1, y1, x2, y2)."
                )
        if self.mask is not None and (self.mask.width, self.mask.height) != (width, height):
            raise PromptError(
                f"Got a mask of {self.mask.width}x{self.mask.height} for a picture of {width}x{height}; "
                "wanted the same size. Resize the mask with nearest-neighbour interpolation."
            )

    def to_json(self) -> dict[str, Any]:
        """Only the parts that are there: `points` as [x, y, label], `box`, `mask` as COCO RLE."""
        out: dict[str, Any] = {}
        if self.points:
            out["points"] = [[x, y, label] for (x, y), label in zip(self.points, self.labels, strict=True)]
        if self.box is not None:
            out["box"] = list(self.box)
        if self.mask is not None:
            out["mask"] = self.mask.to_coco()
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Prompt:
        points = [point if len(point) == 3 else [*point, 1] for point in data.get("points") or ()]
        return cls(
            points=tuple((x, y) for x, y, _ in points),
            labels=tuple(label for _, _, label in points),
            box=tuple(data["box"]) if data.get("box") is not None else None,
            mask=Mask.from_coco(data["mask"]) if data.get("mask") is not None else None,
        )


def _pair(point: Sequence[float]) -> tuple[float, float]:
    try:
        x, y = (float(value) for value in point)
    except (TypeError, ValueError, OverflowError) as error:
        raise PromptError(f"Got the point {point!r}; wanted two numbers x, y.") from error
    if not (math.isfinite(x) and math.isfinite(y)):
        raise PromptError(f"Got the point ({x}, {y}); wanted finite numbers.")
    return (x, y)


def _checked_box(box: Sequence[float]) -> Box:
    try:
        x1, y1, x2, y2 = (float(value) for value in box)
    except (TypeError, ValueError, OverflowError) as error:
        raise PromptError(f"Got the box {box!r}; wanted four numbers x1, y1, x2, y2.") from error
    if not all(math.isfinite(value) for value in (x1, y1, x2, y2)):
        raise PromptError(f"Got the box ({x1}, {y1}, {x2}, {y2}); wanted finite numbers.")
    if x2 <= x1 or y2 <= y1:
        raise PromptError(
            f"Got the box ({x1:g}, {y1:g}, {x2:g}, {y2:g}), which has no area; wanted x1 < x2 and y1 < y2 "
            "(two corners, not a corner and a size)."
        )
    return (x1, y1, x2, y2)


@dataclass(frozen=True)
class ModelRef:
    """Which model gave an answer. `description` says in words what it is made of, and how large it is."""

    name: str
    revision: str
    description: str = ""

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "revision": self.revision, "description": self.description}

    @classmethod
    def from_json(cls, data: Mapping[str, str]) -> ModelRef:
        return cls(data["name"], data["revision"], data.get("description", ""))


@dataclass(frozen=True)
class Region:
    """One answer: a mask and what is known about it.

    `predicted_iou` and `stability` are the mask decoder's own estimates in [0, 1]; `presence` is the object-presence
    score of a tracker; `scores` holds a confidence per task, in [0, 1], where the model has one. `time` is seconds
    from the start of the video.
    """

    mask: Mask
    model: ModelRef
    prompt: Prompt | None = None
    predicted_iou: float | None = None
    stability: float | None = None
    presence: float | None = None
    texts: Texts = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    track_id: int | None = None
    frame: int | None = None
    time: float | None = None

    @property
    def box(self) -> Box:
        """The tight box around the mask, xyxy in pixels, end exclusive; zeros where the mask is empty."""
        return self.mask.box

    def text(self, task: str, language: str = "en") -> str | None:
        """The answer to one task in one language, or None where there is none."""
        return self.texts.get(task, {}).get(language)

    @property
    def label(self) -> str | None:
        """The label in English, or in whatever language there is."""
        labels = self.texts.get("label", {})
        return labels.get("en") or next(filter(None, labels.values()), None)

    def with_texts(self, texts: Texts, scores: Mapping[str, float] | None = None) -> Region:
        """A copy with these answers added to (or put in place of) its own."""
        merged = {task: dict(by_language) for task, by_language in self.texts.items()}
        for task, by_language in texts.items():
            merged.setdefault(task, {}).update(by_language)
        return replace(self, texts=merged, scores={**self.scores, **(scores or {})})

    def to_json(self) -> dict[str, Any]:
        """Stable field names; absent values are null."""
        return {
            "schema": REGION_SCHEMA,
            "box": list(self.box),
            "area": self.mask.area,
            "texts": {task: dict(by_language) for task, by_language in self.texts.items()},
            "scores": dict(self.scores),
            "predicted_iou": self.predicted_iou,
            "stability": self.stability,
            "presence": self.presence,
            "prompt": self.prompt.to_json() if self.prompt else None,
            "track_id": self.track_id,
            "frame": self.frame,
            "time": self.time,
            "model": self.model.to_json(),
            "mask": self.mask.to_coco(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Region:
        """Read what `to_json` wrote; `box` and `area` follow from the mask. Raises SchemaError."""
        _check_schema(data, REGION_SCHEMA)
        with _fields(REGION_SCHEMA):
            return cls._from_fields(data)

    @classmethod
    def _from_fields(cls, data: Mapping[str, Any]) -> Region:
        return cls(
            mask=Mask.from_coco(data["mask"]),
            model=ModelRef.from_json(data["model"]),
            prompt=Prompt.from_json(data["prompt"]) if data.get("prompt") else None,
            predicted_iou=data.get("predicted_iou"),
            stability=data.get("stability"),
            presence=data.get("presence"),
            texts=data.get("texts", {}),
            scores=data.get("scores", {}),
            track_id=data.get("track_id"),
            frame=data.get("frame"),
            time=data.get("time"),
        )


def regions_to_detections(regions: Sequence[Region]) -> supervision.Detections:
    """Regions of one picture as `supervision.Detections`.

    `confidence` is the predicted IoU (0 where unknown), `tracker_id` the track ids where every region has one,
    `data["class_name"]` the labels, and `data["region"]` the whole regions, from which they come back unchanged.
    """
    import supervision

    if not regions:
        return supervision.Detections.empty()
    tracked = all(region.track_id is not None for region in regions)
    return supervision.Detections(
        xyxy=np.array([region.box for region in regions], dtype=np.float32).reshape(-1, 4),
        mask=np.stack([region.mask.array for region in regions]),
        confidence=np.array([region.predicted_iou or 0.0 for region in regions], dtype=np.float32),
        tracker_id=np.array([region.track_id for region in regions], dtype=int) if tracked else None,
        data={
            "class_name": np.array([region.label or "" for region in regions]),
            "region": np.array([_json_line(region.to_json()) for region in regions], dtype=object),
        },
    )


def regions_from_detections(detections: supervision.Detections, model: ModelRef) -> list[Region]:
    """The way back. Detections made elsewhere become regions of `model`, with `class_name` as their label.

    Raises MaskError where the detections carry no masks.
    """
    if len(detections) == 0:
        return []
    if "region" in detections.data:
        return [Region.from_json(json.loads(line)) for line in detections.data["region"]]
    if detections.mask is None:
        raise MaskError("Got detections without masks; wanted `Detections.mask` (N, H, W) boolean.")
    names = detections.data.get("class_name", [None] * len(detections))
    return [
        Region(
            mask=Mask.from_array(np.asarray(detections.mask[i], dtype=bool)),
            model=model,
            predicted_iou=float(detections.confidence[i]) if detections.confidence is not None else None,
            texts={"label": {"en": str(names[i])}} if names[i] else {},
            track_id=int(detections.tracker_id[i]) if detections.tracker_id is not None else None,
        )
        for i in range(len(detections))
    ]


@dataclass(frozen=True)
class Perception:
    """Everything found in one picture, or the reason why nothing could be.

    `run` identifies the model and the options, so that a finished picture is known as finished; `seconds` holds wall
    time per phase; `error` is set, and `regions` empty, where the picture failed.
    """

    image: str
    width: int
    height: int
    model: ModelRef
    regions: tuple[Region, ...] = ()
    run: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": PERCEPTION_SCHEMA,
            "image": self.image,
            "width": self.width,
            "height": self.height,
            "model": self.model.to_json(),
            "run": self.run,
            "error": self.error,
            "seconds": dict(self.seconds),
            "regions": [region.to_json() for region in self.regions],
        }

    def to_line(self) -> str:
        """One line of JSON, newline included."""
        return _json_line(self.to_json()) + "\n"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Perception:
        """Read what `to_json` wrote. Raises SchemaError."""
        _check_schema(data, PERCEPTION_SCHEMA)
        with _fields(PERCEPTION_SCHEMA):
            return cls._from_fields(data)

    @classmethod
    def _from_fields(cls, data: Mapping[str, Any]) -> Perception:
        return cls(
            image=data["image"],
            width=data["width"],
            height=data["height"],
            model=ModelRef.from_json(data["model"]),
            regions=tuple(Region.from_json(region) for region in data["regions"]),
            run=data.get("run", ""),
            seconds=data.get("seconds", {}),
            error=data.get("error"),
        )


class Verdict(str, Enum):
    """What a person said of a region."""

    ACCEPTED = "accepted"
    EDITED = "edited"
    REJECTED = "rejected"


@dataclass(frozen=True)
class Feedback:
    """A person's judgement of one region: `correction` is the region as edited, `source` the host it came from."""

    image: str
    region: Region
    verdict: Verdict
    correction: Region | None = None
    source: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": FEEDBACK_SCHEMA,
            "image": self.image,
            "source": self.source,
            "verdict": self.verdict.value,
            "region": self.region.to_json(),
            "correction": self.correction.to_json() if self.correction else None,
        }

    def to_line(self) -> str:
        """One line of JSON, newline included."""
        return _json_line(self.to_json()) + "\n"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Feedback:
        """Read what `to_json` wrote. Raises SchemaError."""
        _check_schema(data, FEEDBACK_SCHEMA)
        with _fields(FEEDBACK_SCHEMA):
            return cls(
                image=data["image"],
                region=Region.from_json(data["region"]),
                verdict=Verdict(data["verdict"]),
                correction=Region.from_json(data["correction"]) if data.get("correction") else None,
                source=data.get("source", ""),
            )


def language_codes(languages: Iterable[str | Language]) -> tuple[str, ...]:
    """Language codes without repeats, in the order given."""
    return tuple(dict.fromkeys(str(getattr(language, "value", language)) for language in languages))


def _check_schema(data: Mapping[str, Any], wanted: str) -> None:
    got = data.get("schema") if isinstance(data, Mapping) else type(data).__name__
    if got != wanted:
        raise SchemaError(f"Got {got!r}; wanted {wanted!r}. The file was written by another version or another tool.")


@contextmanager
def _fields(wanted: str) -> Iterator[None]:
    """Make a field that is missing or of another type a SchemaError."""
    try:
        yield
    except (SchemaError, PromptError, MaskError):
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SchemaError(f"Got a field missing or of another type ({error!r}); wanted {wanted!r}.") from error


def _json_line(data: Mapping[str, Any]) -> str:
    line = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # Lone surrogates (file names that are not UTF-8) cannot be encoded; JSON spells them out.
    return _SURROGATES.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


_SURROGATES = re.compile("[\ud800-\udfff]")
