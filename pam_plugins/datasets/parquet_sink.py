"""The sink `parquet`: a folder of Parquet files that is one table at every moment, whatever ends the process.

A Parquet file cannot be added to, so each write makes a file of its own, a part, under a name that readers skip, and
gives it its name when it is safe on the disk. `part-000000007-000000009.parquet` holds the writes 7 to 9: many small
parts are made into one as they come, so that their number stays small, and all that fit together when the sink is
closed. Parts whose writes are also in a wider one are what a crash has left, and go.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pam_core.errors import DatasetError
from pam_core.types import Perception
from pam_plugins.datasets.contracts import Job, Result
from pam_plugins.datasets.parquet_rows import SCHEMA, escaped, to_perception, to_table, unescaped
from pam_plugins.files import explained, lock, make_folder

TOGETHER = 16
"""So many parts of one width become one."""

PART_BYTES = 128 * 2**20
"""Parts are not put together beyond this size."""

GROUP_ROWS = 256
"""Rows that are read and written at a time."""

_NAME = re.compile(r"part-(\d{9})-(\d{9})\.parquet")


@dataclass(eq=False)
class _Part:
    """A file with the writes `first` to `last`; `stale` are ids whose row a later part replaces."""

    first: int
    last: int
    size: int = 0
    stale: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        return f"part-{self.first:09}-{self.last:09}.parquet"

    @property
    def width(self) -> int:
        return self.last - self.first + 1


class ParquetSink:
    """Writes rows of `parquet_rows.SCHEMA`. Until the sink is closed, a row that was replaced is there twice.

    Raises DatasetError, also where another process writes into the folder. A part that is damaged is left alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder)
        self._parts: list[_Part] = []
        self._holder: dict[str, _Part] = {}  # by escaped id: the part with its last row
        self._runs: dict[str, str] = {}
        self._group: dict[str, dict[str, Any]] = {}  # the rows that were read last, by escaped id
        self._failed = self._closed = False
        self._lock = lock(folder / "_lock", folder)
        try:
            self._index()
        except OSError as error:
            self._lock.release()
            raise DatasetError(f"{folder} cannot be used ({error.strerror or error}); choose another.") from error
        except BaseException:
            self._lock.release()
            raise

    def _index(self) -> None:
        """Note which rows the parts hold, and remove what a crash has left."""
        parts: list[_Part] = []
        for path in sorted(self.folder.iterdir()):
            if match := _NAME.fullmatch(path.name):
                parts.append(_Part(int(match[1]), int(match[2]), path.stat().st_size))
            elif path.name.startswith("_part-"):
                path.unlink()  # never finished, and never counted as written
            elif path.name[0] not in "._":
                raise DatasetError(
                    f"{self.folder} holds {path.name}, which is no row of pam; choose an empty folder."
                )
        parts.sort(key=lambda part: (part.first, -part.last))
        for part in parts:
            if self._parts and part.last <= self._parts[-1].last:
                (self.folder / part.name).unlink()
                continue
            for batch in self._read(part, ["id", "run", "error"]):
                for record in batch.to_pylist():
                    self._note(part, record["id"], record["run"], failed=record["error"] is not None)
            self._parts.append(part)

    def _note(self, part: _Part, key: str, run: str, *, failed: bool) -> None:
        """Note that the last row of the id `key`, escaped, is in `part`."""
        self._group.pop(key, None)
        before = self._holder.get(key)
        if before is not None and before is not part:
            before.stale.add(key)
        self._holder[key] = part
        if failed:
            self._runs.pop(unescaped(key), None)
        else:
            self._runs[unescaped(key)] = unescaped(run)

    def has(self, job: Job, run: str) -> bool:
        return self._runs.get(job.id) == run

    def read(self, job: Job, run: str) -> Perception:
        """The perception of a row. Rows are read in groups, so it is fast in about the order they were written in."""
        key = escaped(job.id)
        if key not in self._group:
            self._group = self._group_with(key)
        return to_perception(self._group[key])

    def _group_with(self, key: str) -> dict[str, dict[str, Any]]:
        """The row group with the last row of an id, by id."""
        part = self._holder[key]
        with self._opened(part) as file:
            for number in range(file.num_row_groups):
                if key in file.read_row_group(number, columns=["id"])["id"].to_pylist():
                    rows = file.read_row_group(number).to_pylist()
                    return {row["id"]: row for row in rows if self._holder[row["id"]] is part}
        raise DatasetError(f"{self.folder / part.name} was changed while it was in use; run the same command again.")

    def write(self, results: Sequence[Result]) -> None:
        results = list({result.job.id: result for result in results}.values())
        number = self._parts[-1].last + 1 if self._parts else 1
        part = _Part(number, number)
        self._save(part, iter(to_table(results).to_batches()))
        self._parts.append(part)
        for result in results:
            failed = result.perception.error is not None
            self._note(part, escaped(result.job.id), escaped(result.perception.run), failed=failed)
        last = self._parts[-TOGETHER:]
        while len(last) == TOGETHER and last[0].width == last[-1].width and _size(last) <= PART_BYTES:
            self._join(last)
            last = self._parts[-TOGETHER:]

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if not self._failed:
                for group in list(self._groups()):
                    if len(group) > 1 or group[0].stale:
                        self._join(group)
        finally:
            self._lock.release()

    def _groups(self) -> Iterator[list[_Part]]:
        """The parts in order, as many together as may become one."""
        group: list[_Part] = []
        for part in self._parts:
            if group and _size(group) + part.size > PART_BYTES:
                yield group
                group = []
            group.append(part)
        if group:
            yield group

    def _join(self, parts: list[_Part]) -> None:
        """Make neighbours one part without their stale rows; they stay until it is safe."""
        joined = _Part(parts[0].first, parts[-1].last)
        self._save(joined, (batch for part in parts for batch in self._fresh(part)))
        here = self._parts.index(parts[0])
        self._parts[here : here + len(parts)] = [joined]
        gone = set(map(id, parts))
        self._holder.update({key: joined for key, part in self._holder.items() if id(part) in gone})
        for part in parts:
            if part.name != joined.name:
                (self.folder / part.name).unlink()

    def _fresh(self, part: _Part) -> Iterator[pa.RecordBatch]:
        stale = pa.array(sorted(part.stale), pa.string())
        for batch in self._read(part, SCHEMA.names):
            yield batch.filter(pc.invert(pc.is_in(batch["id"], stale))) if part.stale else batch

    def _read(self, part: _Part, columns: list[str]) -> Iterator[pa.RecordBatch]:
        with self._opened(part) as file:
            yield from file.iter_batches(GROUP_ROWS, columns=columns)

    @contextmanager
    def _opened(self, part: _Part) -> Iterator[pq.ParquetFile]:
        path = self.folder / part.name
        try:
            with pq.ParquetFile(path) as file:
                if file.schema_arrow != SCHEMA:
                    raise DatasetError(f"{path} was written by another version; choose an empty folder.")
                yield file
        except (OSError, pa.ArrowException) as error:
            self._failed = True
            raise DatasetError(
                f"{path} is damaged ({error}). Move it out of the folder, and its pictures are done again; "
                "the other parts are good and nothing was changed."
            ) from error

    def _save(self, part: _Part, batches: Iterator[pa.RecordBatch]) -> None:
        """Write a part, safe on the disk under its own name when this returns; or nothing, and DatasetError."""
        path, temporary = self.folder / part.name, self.folder / f"_{part.name}"
        try:
            with explained(path, resumable=True), temporary.open("wb") as file:
                with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
                    for table in _groups_of_rows(batches):
                        writer.write_table(table)
                file.flush()
                os.fsync(file.fileno())
                part.size = file.tell()
            with explained(path, resumable=True):
                temporary.replace(path)
                _sync(self.folder)
        except BaseException:
            self._failed = True
            raise
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _groups_of_rows(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The rows in tables that are not too small to be read fast, nor too large for the memory."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(each.num_rows for each in held) >= GROUP_ROWS:
            yield pa.Table.from_batches(held, SCHEMA)
            held = []
    if held:
        yield pa.Table.from_batches(held, SCHEMA)


def _size(parts: Sequence[_Part]) -> int:
    return sum(part.size for part in parts)


def _sync(folder: Path) -> None:
    """Make a new name in a folder outlast a power cut; not on Windows, where folders cannot be opened."""
    if os.name != "nt":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
