"""Writing files: a good old one is replaced by a complete new one or not at all. Errors are DatasetError."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from pam_core.errors import DatasetError


@contextmanager
def explained(path: Path, resumable: bool = False) -> Iterator[None]:
    """Make an OSError raised inside a DatasetError that names the file and says what to do."""
    try:
        yield
    except OSError as error:
        resumes = ": it goes on from there" if resumable else ""
        raise DatasetError(
            f"Cannot write {path}: {error.strerror or error}. Make room, or choose another place, and run the same "
            f"command again{resumes}."
        ) from error


def lock(path: Path, target: Path) -> FileLock:
    """A lock on the file `path`, held until it is released or the process ends, however it ends.

    Raises DatasetError, about `target`, where another process holds it or the file cannot be made.
    """
    held = FileLock(path, blocking=False, thread_local=False)
    try:
        held.acquire()
    except Timeout as error:
        raise DatasetError(
            f"{target} is being written by another process; wait for it, or choose another place."
        ) from error
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"{target} cannot be written ({reason}); choose another place.") from error
    return held


def make_folder(folder: Path) -> Path:
    """The folder, made where it is missing, with its parents. Raises DatasetError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"{folder} cannot be written ({error.strerror}); choose another folder.") from error
    return folder


def append(path: Path, file: io.FileIO, line: bytes, resumable: bool = False) -> int:
    """Append a line to an unbuffered file and return its offset. Where that fails, nothing of it stays in the file.

    Raises DatasetError, about `path`.
    """
    offset = file.seek(0, os.SEEK_END)
    try:
        with explained(path, resumable):
            view = memoryview(line)
            while view:
                view = view[file.write(view) :]
    except DatasetError:
        with contextlib.suppress(OSError):  # an incomplete last line is removed by the next run
            file.truncate(offset)
        raise
    return offset


class Part:
    """A text file that grows beside `path` and takes its place at `finish`, unless a write failed."""

    def __init__(self, path: Path, resumable: bool = False) -> None:
        self.path, self._resumable = path, resumable
        self.part = _part_of(path)
        with explained(path, resumable):
            self._file = self.part.open("w", encoding="utf-8", newline="\n")

    def write(self, text: str) -> None:
        """Append. Once this has failed, the part is gone and every further write fails."""
        if self._file.closed:
            raise DatasetError(f"Cannot write {self.path}: it was closed, or writing it failed before.")
        try:
            with explained(self.path, self._resumable):
                self._file.write(text)
        except BaseException:
            self._drop()
            raise

    def finish(self) -> None:
        """Put the file in its place. A second call does nothing, and so does one after a failed write."""
        if self._file.closed:
            return
        try:
            with explained(self.path, self._resumable):
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
    """Write `data` to `path` in one step: a reader gets the old file or the new one, never a part."""
    part = _part_of(path)
    try:
        with explained(path, resumable=True):
            part.write_bytes(data)
            part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


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
    while len(safe.encode(errors="surrogatepass")) > 180:  # most file systems stop at 255 bytes
        safe = safe[:-1]
    return safe.strip(". ") or "picture"
