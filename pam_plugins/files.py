"""Writing files so that a good old one is replaced by a whole new one or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Make an OSError raised inside say which file it was about."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"Cannot write {path}: {reason}") from error


class Part:
    """A text file that grows beside `path` and takes its place at `finish`, unless a write failed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part = path.with_name(f".{path.name}.{os.getpid()}.part")
        with explained(path):
            self._file = self.part.open("w", encoding="utf-8", newline="\n")

    def write(self, text: str) -> None:
        """Append. Once this has failed, the part is gone and every further write fails."""
        if self._file.closed:
            raise OSError(f"Cannot write {self.path}: it was closed, or writing it failed before.")
        try:
            with explained(self.path):
                self._file.write(text)
        except BaseException:
            self._drop()
            raise

    def finish(self) -> None:
        """Put the file in its place. A second call does nothing, and so does one after a failed write."""
        if self._file.closed:
            return
        try:
            with explained(self.path):
                self._file.close()
                self.part.replace(self.path)
        finally:
            self._drop()

    @property
    def closed(self) -> bool:
        """Whether there is nothing more to write to: finished, or dropped after a failed write."""
        return self._file.closed

    def _drop(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self.part.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to `path` in one go: a reader sees the old file or the new one, never a part."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with explained(path):
            part.write_bytes(data)
            part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


class UniqueNames:
    """Hands out file names; where two pictures share a stem, the later ones get a number."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def name(self, image: str, suffix: str) -> str:
        """`<stem><suffix>`, or `<stem>-2<suffix>` and so on where that was given to another picture."""
        stem = _stem(image)
        name, number = stem + suffix, 1
        while name.casefold() in self._taken:  # some file systems take "A" and "a" for one name
            number += 1
            name = f"{stem}-{number}{suffix}"
        self._taken.add(name.casefold())
        return name


def _stem(image: str) -> str:
    stem = PurePosixPath(image.replace("\\", "/")).stem
    safe = "".join("_" if character in '<>:"|?*' or ord(character) < 32 else character for character in stem)
    while len(safe.encode()) > 180:  # most file systems stop at 255 bytes
        safe = safe[:-1]
    return safe.strip(". ") or "picture"
