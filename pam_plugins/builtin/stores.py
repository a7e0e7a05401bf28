"""The built-in kinds of store that `pam enrich` reads from and writes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pam_plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from pam_plugins.enrich.stores import Store


@hookimpl
def pam_stores() -> Sequence[Store]:
    from pam_plugins.enrich.coco import CocoStore
    from pam_plugins.enrich.folder import FolderStore
    from pam_plugins.enrich.parquet import ParquetStore

    return [FolderStore(), CocoStore(), ParquetStore()]
