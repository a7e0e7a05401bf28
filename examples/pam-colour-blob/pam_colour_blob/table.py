"""The sink `csv`: one `regions.csv`, a row for each region."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from pam_core.errors import DatasetError
from pam_plugins.datasets.contracts import Result

COLUMNS = ("image", "label", "x1", "y1", "x2", "y2", "area", "model")


class CsvFormat:
    name = "csv"
    description = "regions.csv in a folder: a row for each region with its label or mean colour, box, area and model"

    def open(self, address: str) -> CsvSink:
        return CsvSink(Path(address) / "regions.csv")


class CsvSink:
    """Writes rows as they come. A picture that failed has none."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        except OSError as error:
            raise DatasetError(f"{path} cannot be written ({error.strerror}); choose another folder.") from error
        self._rows = csv.writer(self._file)
        self._rows.writerow(COLUMNS)

    def write(self, results: Sequence[Result]) -> None:
        for perception in (result.perception for result in results):
            for region in perception.regions:
                words = region.label or next(iter(region.texts.get("mean-colour", {}).values()), "")
                model = f"{region.model.name}@{region.model.revision}"
                self._rows.writerow((perception.image, words, *map(int, region.box), region.mask.area, model))

    def close(self) -> None:
        self._file.close()
