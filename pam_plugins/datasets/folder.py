"""The source `folder`: the pictures of a folder, each with everything in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pam_core.errors import DatasetError
from pam_core.media.images import pictures_in
from pam_plugins.datasets.contracts import Job


class FolderSourceFormat:
    """`folder:photos`."""

    name = "folder"
    description = "the pictures of a folder, everything in them: folder:FOLDER"

    def open(self, address: str) -> FolderSource:
        return FolderSource(Path(address))


class FolderSource:
    """The pictures in order of name; a picture's id is its path."""

    def __init__(self, folder: Path) -> None:
        self.pictures = pictures_of(folder)
        if not self.pictures:
            raise DatasetError(f"{folder} holds no picture; wanted a folder with JPEG, PNG or other pictures in it.")

    def __len__(self) -> int:
        return len(self.pictures)

    def jobs(self) -> Iterator[Job]:
        return map(Job, self.pictures)


def pictures_of(folder: Path) -> list[Path]:
    """The pictures in a folder, in order of name. Raises DatasetError."""
    try:
        return pictures_in(folder)
    except OSError as error:
        raise DatasetError(f"{folder}: {error.strerror}; wanted a folder of pictures.") from error
