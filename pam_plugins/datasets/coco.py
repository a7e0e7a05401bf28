"""COCO files: the source `coco`, annotations as prompts, and the sink `coco`, regions as annotations."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from pam_core.errors import DatasetError, MaskError, PromptError
from pam_core.masks import Mask
from pam_core.types import Prompt, Region
from pam_plugins.datasets.contracts import Job, Result
from pam_plugins.files import make_folder, write_whole

ROUNDING = 1.0
"""Pixels by which a box or polygon may reach over the picture's edge: rounded coordinates do."""

UNLABELLED = "unlabelled"


class CocoSourceFormat:
    """`coco:instances.json`."""

    name = "coco"
    description = "a COCO file, its boxes and segmentations as prompts: coco:FILE or coco:FILE,FOLDER"

    def open(self, address: str) -> CocoSource:
        path, folder = Path(address), None
        if not path.exists() and "," in address:
            file, _, pictures = address.rpartition(",")
            path, folder = Path(file), Path(pictures)
        return CocoSource(path, folder)


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
                reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
                raise PromptError(f"Annotation {annotation.get('id')}: {reason}") from error


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
    """The union of polygons [x1, y1, x2, y2, ...] as a mask."""
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
    numbers = [[float(value) for value in each] for each in polygons]
    return Mask.from_coco(coco_mask.merge(coco_mask.frPyObjects(numbers, height, width)))


def _box(bbox: list[float], image: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """COCO's x, y, width, height as corners; what rounding put over the edge is cut off where the size is known."""
    x, y, w, h = (float(value) for value in bbox)
    corners = (x, y, x + w, y + h)
    if "width" not in image or "height" not in image:
        return corners
    width, height = float(image["width"]), float(image["height"])
    inside = (max(corners[0], 0.0), max(corners[1], 0.0), min(corners[2], width), min(corners[3], height))
    moved = max(abs(a - b) for a, b in zip(corners, inside, strict=True))
    return inside if moved <= ROUNDING else corners  # Prompt.check explains the others


class CocoSinkFormat:
    """`coco:instances.json`."""

    name = "coco"
    description = "a COCO file, the texts as attributes: coco:FILE.json, or coco:FOLDER for FOLDER/coco.json"

    def open(self, address: str) -> CocoSink:
        path = Path(address)
        is_file = path.suffix.lower() == ".json" and not path.is_dir()
        return CocoSink(path if is_file else path / "coco.json")


class CocoSink:
    """Keeps annotations, never pixels, and writes the file at `close`. Pictures that failed are named in `info`.

    `score` is the confidence in the label, or the mask's predicted IoU where the label has none. `attributes`
    holds the texts: English ones under the task's name (`brief`), others with their language (`brief_zh`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        make_folder(path.parent)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._categories: dict[str, dict[str, Any]] = {}
        self._failed: list[dict[str, str]] = []
        self._models: dict[str, dict[str, str]] = {}
        self._closed = False

    def write(self, results: Sequence[Result]) -> None:
        for perception in (result.perception for result in results):
            if perception.error is not None:
                self._failed.append({"file_name": perception.image, "error": perception.error})
                continue
            model = perception.model
            self._models.setdefault(f"{model.name}@{model.revision}", model.to_json())
            image = {"id": len(self._images) + 1, "file_name": perception.image}
            self._images.append({**image, "width": perception.width, "height": perception.height})
            for region in perception.regions:
                if region.mask.area:
                    self._annotations.append(self._annotation(region, len(self._images)))

    def _annotation(self, region: Region, image_id: int) -> dict[str, Any]:
        x1, y1, x2, y2 = region.box
        annotation: dict[str, Any] = {
            "id": len(self._annotations) + 1,
            "image_id": image_id,
            "category_id": self._category(region.label),
            "segmentation": region.mask.to_coco(),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": region.mask.area,
            "iscrowd": 0,
            "attributes": {
                task if language == "en" else f"{task}_{language}": text
                for task, by_language in region.texts.items()
                for language, text in by_language.items()
            },
        }
        score = region.scores.get("label", region.predicted_iou)
        known = {
            "score": score,
            "predicted_iou": region.predicted_iou,
            "stability": region.stability,
            "track_id": region.track_id,
        }
        annotation.update({key: value for key, value in known.items() if value is not None})
        return annotation

    def _category(self, label: str | None) -> int:
        """Labels that differ only in case are one category, spelt as the first of them."""
        name = (label or "").strip() or UNLABELLED
        new = {"id": len(self._categories) + 1, "name": name, "supercategory": ""}
        category: int = self._categories.setdefault(name.casefold(), new)["id"]
        return category

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        data = {
            "info": {
                "description": "Regions perceived in pictures",
                "models": list(self._models.values()),
                "failed": self._failed,
            },
            "licenses": [],
            "images": self._images,
            "annotations": self._annotations,
            "categories": list(self._categories.values()),
        }
        text = json.dumps(data, ensure_ascii=False, allow_nan=False)
        write_whole(self.path, text.encode(errors="backslashreplace"))  # file names need not be UTF-8
