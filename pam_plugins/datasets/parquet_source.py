"""A source of jobs: a Parquet file, or a folder of them, with columns id, image and, where there are any, prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pam_core.errors import DatasetError, MaskError, PromptError
from pam_core.types import Prompt
from pam_plugins.datasets.contracts import Job
from pam_plugins.datasets.parquet_rows import unescaped

ROWS = 256
"""Rows read at a time."""


class ParquetSource:
    """The rows in order, of a folder in the order of its files' names.

    `id` is text or a whole number, `image` a path, relative to where the program was started. `prompts` is JSON: a
    list of prompts as `Prompt.to_json` gives them, or one; null is everything. Raises DatasetError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            self.files = sorted(each for each in path.glob("*.parquet") if each.name[0] not in "._")
        else:
            self.files = [path]
        ids: set[str] = set()
        for file in self.files:
            for batch in _read(file, ("id", "image"), ("id",)):
                for value in batch["id"].to_pylist():
                    ids.add(_id(value, file, ids))
        self._length = len(ids)
        if not ids:
            raise DatasetError(f"{path} holds no row; wanted a Parquet file with the columns id and image.")

    def __len__(self) -> int:
        return self._length

    def jobs(self) -> Iterator[Job]:
        for file in self.files:
            for batch in _read(file, ("id", "image"), ("id", "image", "prompts")):
                for record in batch.to_pylist():
                    yield _job(record)


def _read(file: Path, needed: tuple[str, ...], wanted: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    """The `wanted` columns that are there, `ROWS` at a time. Raises DatasetError, also where a `needed` one lacks."""
    try:
        with pq.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            if lacking := [name for name in needed if name not in names]:
                raise DatasetError(f"{file} has no column {' and no '.join(lacking)}; wanted id, image and prompts.")
            yield from opened.iter_batches(ROWS, columns=[name for name in wanted if name in names])
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{file} cannot be read ({error}); wanted a Parquet file.") from error


def _id(value: object, file: Path, others: set[str]) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise DatasetError(f"{file}: got the id {value!r}; wanted text or a whole number in every row.")
    key = unescaped(str(value))
    if key in others:
        raise DatasetError(f"{file}: the id {key!r} is there twice; wanted each row to have its own.")
    return key


def _job(record: Mapping[str, Any]) -> Job:
    key, image = unescaped(str(record["id"])), record["image"]
    if not isinstance(image, str) or not image:
        return Job(Path(), id=key, error=f"Row {key}: got the image {image!r}; wanted a path.")
    path = Path(unescaped(image))
    try:
        return Job(path, _prompts(record.get("prompts")), key)
    except (PromptError, MaskError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return Job(path, (), key, error=f"The prompts of row {key}: {error}")


def _prompts(text: str | None) -> tuple[Prompt, ...]:
    if text is None:
        return ()
    data = json.loads(text)
    prompts = tuple(Prompt.from_json(each) for each in (data if isinstance(data, list) else [data]))
    if not prompts:
        raise PromptError("Got an empty list; wanted at least one prompt, or null for everything.")
    return prompts
