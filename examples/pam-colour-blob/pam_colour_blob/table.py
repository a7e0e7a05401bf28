"""The exporter `csv`: one `regions.csv`, a row for each region."""

from __future__ import annotations

import csv
from pathlib import Path

from pam_core.types import Perception, Picture

COLUMNS = ("image", "label", "x1", "y1", "x2", "y2", "area", "model")


class CsvExporter:
    name = "csv"
    description = "regions.csv: a row for each region with its label or mean colour, box, area and model"

    def open(self, folder: Path) -> CsvWriter:
        return CsvWriter(folder / "regions.csv")


class CsvWriter:
    """Writes rows as they come. A picture that failed has none."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        self._rows = csv.writer(self._file)
        self._rows.writerow(COLUMNS)

    def write(self, perception: Perception, picture: Picture | None) -> None:
        for region in perception.regions:
            words = region.label or next(iter(region.texts.get("mean-colour", {}).values()), "")
            model = f"{region.model.name}@{region.model.revision}"
            self._rows.writerow((perception.image, words, *map(int, region.box), region.mask.area, model))

    def close(self) -> None:
        self._file.close()
