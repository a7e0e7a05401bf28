"""The results file: one perception a line, appended whole, so that it survives kill -9 and a run can be resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from pam_core.errors import DatasetError, SchemaError
from pam_core.types import PERCEPTION_SCHEMA, Perception
from pam_plugins.locks import lock

_FIRST_BYTES = f'{{"schema":"{PERCEPTION_SCHEMA}"'.encode()


class ResultsFile:
    """A JSON Lines file of perceptions, open for appending.

    A line cut short by a crash or a full disk is removed, and its picture done again. A file that is something else
    is refused and left as it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._done: dict[tuple[str, str], int] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise DatasetError(
                f"{path} cannot be written ({error.strerror}); choose another --out or mend its permissions."
            ) from error
        try:
            self._lock()
            self._take_stock()
        except OSError as error:
            self._file.close()
            raise DatasetError(
                f"{path} is no plain file ({error.strerror or error}); choose another --out."
            ) from error
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        """Keep other processes from writing too."""
        if not lock(self._file):
            raise DatasetError(
                f"{self.path} is being written by another process; wait for it or choose another --out."
            )

    def _take_stock(self) -> None:
        offset = 0
        self._file.seek(0)
        with os.fdopen(os.dup(self._file.fileno()), "rb") as reader:
            for number, line in enumerate(reader, 1):
                if not line.startswith(_FIRST_BYTES[: len(line)]):
                    raise DatasetError(
                        f"{self.path}, line {number}, is not a result of this version of pam; "
                        "choose another --out (nothing was changed)."
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
                    self._done[key] = offset
                offset += len(line)
        self._file.truncate(offset)

    def __contains__(self, key: tuple[str, str]) -> bool:
        """Whether the picture `key[0]` was finished without an error in the run `key[1]`."""
        return key in self._done

    def __getitem__(self, key: tuple[str, str]) -> Perception:
        """A finished perception, read back from the file."""
        with self.path.open("rb") as reader:
            reader.seek(self._done[key])
            return Perception.from_json(json.loads(reader.readline()))

    def append(self, perception: Perception) -> None:
        """Write one line and hand it to the operating system. Where that fails, nothing of it stays in the file."""
        line = perception.to_line().encode()
        offset = self._file.seek(0, os.SEEK_END)
        try:
            view = memoryview(line)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            with suppress(OSError):  # what is left of the line, the next run removes
                self._file.truncate(offset)
            raise DatasetError(
                f"{self.path} cannot be written ({error.strerror}); what is finished is in it. "
                "Make room and run the same command again: it goes on from there."
            ) from error
        if perception.error is None:
            self._done[perception.image, perception.run] = offset

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_results(path: Path) -> Iterator[Perception]:
    """The perceptions of a results file, one after the other. Raises SchemaError with the line's number."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield Perception.from_json(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise SchemaError(f"{path}, line {number}: {error}") from error
