"""The source and the sink `parquet`: tables of pictures, and a folder of rows. Importing this needs no pyarrow."""

from __future__ import annotations

from pathlib import Path

from pam_core.errors import needs_extra
from pam_plugins.datasets.contracts import ResumableSink, Source


class ParquetSourceFormat:
    """`parquet:table.parquet`."""

    name = "parquet"
    description = "a Parquet file, or a folder of them, with columns id, image and prompts: parquet:PATH"

    def open(self, address: str) -> Source:
        with needs_extra("ray", "Parquet"):
            from pam_plugins.datasets.parquet_source import ParquetSource
        return ParquetSource(Path(address))


class ParquetSinkFormat:
    """`parquet:out`."""

    name = "parquet"
    description = "a folder of Parquet files, a row for each picture: parquet:FOLDER"

    def open(self, address: str) -> ResumableSink:
        with needs_extra("ray", "Parquet"):
            from pam_plugins.datasets.parquet_sink import ParquetSink
        return ParquetSink(Path(address))
