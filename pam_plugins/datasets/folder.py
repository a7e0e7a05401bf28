"""The kind of store `folder`: the pictures of a folder, to look at everything in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pam_core.errors import DatasetError, UnsupportedError
from pam_core.media.images import pictures_in
from pam_plugins.datasets.contracts import Job, Sink, Source


class FolderStore:
    name = "folder"
    description = "the pictures of a folder, all that is in them (source)"

    def source(self, address: str) -> Source:
        return FolderSource(Path(address))

    def sink(self, address: str) -> Sink:
        raise UnsupportedError(
            f"Got folder:{address} to write to; a folder of pictures is a source only. "
            f"Write to parquet:{address}-seen."
        )


class FolderSource:
    """The pictures in order of name; a picture's id is its path."""

    def __init__(self, folder: Path) -> None:
        try:
            self.pictures = pictures_in(folder)
        except OSError as error:
            raise DatasetError(f"{folder}: {error.strerror}; wanted a folder of pictures.") from error
        if not self.pictures:
            raise DatasetError(f"{folder} holds no picture; wanted a folder with JPEG, PNG or other pictures in it.")

    def __len__(self) -> int:
        return len(self.pictures)

    def jobs(self) -> Iterator[Job]:
        return map(Job, self.pictures)
