"""The sink `jsonl`, the results file: one perception a line, appended at once, so that it survives kill -9."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pam_core.errors import DatasetError, SchemaError
from pam_core.types import PERCEPTION_SCHEMA, Perception
from pam_plugins.datasets.contracts import Job, Result
from pam_plugins.files import append, lock, make_folder

_FIRST_BYTES = f'{{"schema":"{PERCEPTION_SCHEMA}"'.encode()


class JsonLinesFormat:
    """`jsonl:results.jsonl`."""

    name = "jsonl"
    description = "JSON Lines, a perception a line: jsonl:FILE, or jsonl:FOLDER for FOLDER/results.jsonl"

    def open(self, address: str) -> JsonLinesSink:
        path = Path(address)
        return JsonLinesSink(path / "results.jsonl" if path.is_dir() else path)


class JsonLinesSink:
    """A JSON Lines file of perceptions, resumable by path and run. Other processes are refused while it is open.

    A line cut short by a crash or a full disk is removed, and its picture done again. A file of another kind is
    refused and not changed. Raises DatasetError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets: dict[tuple[str, str], int] = {}
        make_folder(path.parent)
        self._lock = lock(path.with_name(f".{path.name}.lock"), path)
        try:
            self._file = path.open("a+b", buffering=0)
            try:
                self._index()
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            self._lock.release()
            raise DatasetError(
                f"{path} cannot be written ({error.strerror or error}); choose another file, or mend its permissions."
            ) from error
        except BaseException:
            self._lock.release()
            raise

    def _index(self) -> None:
        """Note where the finished perceptions are, and cut off an incomplete last line."""
        offset = 0
        self._file.seek(0)
        with os.fdopen(os.dup(self._file.fileno()), "rb") as reader:
            for number, line in enumerate(reader, 1):
                if not line.startswith(_FIRST_BYTES[: len(line)]):
                    raise DatasetError(
                        f"{self.path}, line {number}, is not a result of this version of pam; "
                        "choose another file (nothing was changed)."
                    )
                if not line.endswith(b"\n"):
                    break
                try:
                    data = json.loads(line)
                    key, failed = (str(data["image"]), str(data["run"])), data["error"] is not None
                    if (data["image"], data["run"]) != key:
                        raise TypeError("image and run are no text")
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    raise DatasetError(
                        f"{self.path}, line {number}, is damaged ({error}); mend or move it."
                    ) from error
                if not failed:
                    self._offsets[key] = offset
                offset += len(line)
        self._file.truncate(offset)

    def has(self, job: Job, run: str) -> bool:
        return (str(job.path), run) in self._offsets

    def read(self, job: Job, run: str) -> Perception:
        with self.path.open("rb") as reader:
            reader.seek(self._offsets[str(job.path), run])
            return Perception.from_json(json.loads(reader.readline()))

    def write(self, results: Sequence[Result]) -> None:
        for result in results:
            perception = result.perception
            offset = append(self.path, self._file, perception.to_line().encode(), resumable=True)
            if perception.error is None:
                self._offsets[perception.image, perception.run] = offset

    def close(self) -> None:
        self._file.close()
        self._lock.release()


def read_results(path: Path) -> Iterator[Perception]:
    """The perceptions of a results file, one after the other. Raises SchemaError with the line's number."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield Perception.from_json(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise SchemaError(f"{path}, line {number}: {error}") from error
