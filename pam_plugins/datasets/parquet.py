"""The kind of store `parquet`: tables of pictures to read, and a folder of Parquet files to write."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from pam_core.errors import DatasetError
from pam_plugins.datasets.contracts import Sink, Source


class ParquetStore:
    name = "parquet"
    description = "a Parquet file or folder with columns id, image and prompts (source); a folder of rows (sink)"

    def source(self, address: str) -> Source:
        _check_installed()
        from pam_plugins.datasets.parquet_source import ParquetSource

        return ParquetSource(Path(address))

    def sink(self, address: str) -> Sink:
        _check_installed()
        from pam_plugins.datasets.parquet_sink import ParquetSink

        return ParquetSink(Path(address))


def _check_installed() -> None:
    if find_spec("pyarrow") is None:
        raise DatasetError("Parquet needs pyarrow, which is not installed: pip install 'pam-plugins[ray]'")
