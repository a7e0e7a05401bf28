"""The kind of store `coco`: a COCO file with its annotations as prompts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pam_core.errors import DatasetError, MaskError, PromptError, UnsupportedError
from pam_core.masks import Mask
from pam_core.types import Prompt
from pam_plugins.datasets.contracts import Job, Sink, Source

ROUNDING = 1.0
"""Pixels by which a box or polygon may reach over the picture's edge: rounded coordinates do."""


class CocoStore:
    name = "coco"
    description = "a COCO file, its boxes and segmentations as prompts: coco:FILE or coco:FILE,FOLDER (source)"

    def source(self, address: str) -> Source:
        path, folder = Path(address), None
        if not path.exists() and "," in address:
            file, _, pictures = address.rpartition(",")
            path, folder = Path(file), Path(pictures)
        return CocoSource(path, folder)

    def sink(self, address: str) -> Sink:
        raise UnsupportedError(
            f"Got coco:{address} to write to; a COCO file is a source only. `pam perceive --export coco` writes one."
        )


class CocoSource:
    """The pictures in the file's order, each with a prompt for each of its annotations; without any, everything.

    `file_name` is relative to the folder given, or to the file's. The id is the picture's in the file. A segmentation
    (polygons or run lengths) is a mask prompt; without one, `bbox` is a box prompt. Annotations of pictures that are
    not in the file are left out, as files cut down to fewer pictures often have them. Raises DatasetError.
    """

    def __init__(self, path: Path, folder: Path | None = None) -> None:
        self.path = path
        self.folder = path.parent if folder is None else folder
        try:
            data = json.loads(path.read_text(encoding="utf-8-sig"))
            self._images: dict[str, Mapping[str, Any]] = {}
            for image in data["images"]:
                key = str(image["id"])
                if key in self._images:
                    raise ValueError(f"two pictures have the id {key}")
                if not isinstance(image["file_name"], str):
                    raise TypeError(f"the file_name of the picture {key} is no text")
                self._images[key] = image
            self._annotations: dict[str, list[Mapping[str, Any]]] = {}
            for annotation in data.get("annotations") or ():
                self._annotations.setdefault(str(annotation["image_id"]), []).append(annotation)
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read ({error.strerror}); wanted a COCO file.") from error
        except KeyError as error:
            raise DatasetError(f"{path} is no COCO file: it lacks {error}; wanted images and annotations.") from error
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DatasetError(
                f"{path} is no COCO file ({error}); wanted JSON with images and annotations."
            ) from error
        if not self._images:
            raise DatasetError(f"{path} lists no picture; wanted at least one under images.")

    def __len__(self) -> int:
        return len(self._images)

    def jobs(self) -> Iterator[Job]:
        for key, image in self._images.items():
            path = self.folder / image["file_name"]
            try:
                yield Job(path, tuple(self._prompts(key, image)), key)
            except PromptError as error:
                yield Job(path, (), key, error=str(error))

    def _prompts(self, key: str, image: Mapping[str, Any]) -> Iterator[Prompt]:
        for annotation in self._annotations.get(key, ()):
            try:
                yield _prompt(annotation, image)
            except (PromptError, MaskError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
                said = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
                raise PromptError(f"Annotation {annotation.get('id')}: {said}") from error


def _prompt(annotation: Mapping[str, Any], image: Mapping[str, Any]) -> Prompt:
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        mask = Mask.from_coco(segmentation)
    elif segmentation:
        mask = _filled(segmentation, int(image["width"]), int(image["height"]))
    else:
        return Prompt(box=_box(annotation["bbox"], image))
    return Prompt(mask=mask)


def _filled(polygons: list[list[float]], width: int, height: int) -> Mask:
    """What lies within polygons [x1, y1, x2, y2, ...], all together."""
    from pycocotools import mask as coco

    for polygon in polygons:
        xs, ys = polygon[0::2], polygon[1::2]
        if len(polygon) < 6 or len(polygon) % 2:
            raise PromptError(f"Got a polygon of {len(polygon)} numbers; wanted x and y of at least three points.")
        if not all(map(math.isfinite, polygon)):
            raise PromptError("Got a polygon with a coordinate that is no number; wanted pixels.")
        if min(*xs, *ys) < -ROUNDING or max(xs) > width + ROUNDING or max(ys) > height + ROUNDING:
            raise PromptError(
                f"Got a polygon from ({min(xs):g}, {min(ys):g}) to ({max(xs):g}, {max(ys):g}), reaching outside the "
                f"picture of {width}x{height}."
            )
    merged = coco.merge(coco.frPyObjects([[float(value) for value in each] for each in polygons], height, width))
    return Mask.from_coco(merged)


def _box(bbox: list[float], image: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """COCO's x, y, width, height as corners; what rounding put over the edge is cut off where the size is known."""
    x, y, w, h = (float(value) for value in bbox)
    corners = (x, y, x + w, y + h)
    if "width" not in image or "height" not in image:
        return corners
    width, height = float(image["width"]), float(image["height"])
    inside = (max(corners[0], 0.0), max(corners[1], 0.0), min(corners[2], width), min(corners[3], height))
    moved = max(abs(a - b) for a, b in zip(corners, inside, strict=True))
    return inside if moved <= ROUNDING else corners  # the prompt's own check says what is wrong with these
