"""The exporter `coco`: one `coco.json`, masks as run lengths, for all that reads COCO annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pam_core.types import Perception, Picture, Region
from pam_plugins.files import write_whole

UNLABELLED = "unlabelled"


class CocoExporter:
    """Writes `coco.json`."""

    name = "coco"
    description = "coco.json: masks, boxes and labels as COCO annotations, the texts as their attributes"

    def open(self, folder: Path) -> CocoWriter:
        return CocoWriter(folder / "coco.json")


class CocoWriter:
    """Keeps annotations, never pixels, and writes them at `close`. Pictures that failed are named in `info`.

    `score` is the confidence in the label, or the mask's predicted IoU where the label has none. `attributes`
    holds the texts: English ones under the task's name (`brief`), others with their language (`brief_zh`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._categories: dict[str, dict[str, Any]] = {}
        self._failed: list[dict[str, str]] = []
        self._models: dict[str, dict[str, str]] = {}
        self._closed = False

    def write(self, perception: Perception, picture: Picture | None) -> None:
        if perception.error is not None:
            self._failed.append({"file_name": perception.image, "error": perception.error})
            return
        model = perception.model
        self._models.setdefault(f"{model.name}@{model.revision}", model.to_json())
        image_id = len(self._images) + 1
        self._images.append(
            {
                "id": image_id,
                "file_name": perception.image,
                "width": perception.width,
                "height": perception.height,
            }
        )
        for region in perception.regions:
            if region.mask.area:
                self._annotations.append(self._annotation(region, image_id))

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
        """Labels that differ only in case are one category, spelt as first seen."""
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
