"""Arrow and parquet files, read one column or one cell at a time."""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def read_cell(file: Path, row: int, column: str) -> bytes:
    """The bytes in a media cell, stored as they are or as {"bytes", "path"}. ValueError when the cell is empty."""
    value = open_table(file).cell(column, row)
    value = value["bytes"] if isinstance(value, dict) else value
    if value is None:
        raise ValueError(f"{file} row {row} {column}: no bytes here")
    return value


@functools.lru_cache(maxsize=2)
def open_table(file: Path) -> "ArrowFile | ParquetFile":
    return ParquetFile(file) if file.suffix.lower() == ".parquet" else ArrowFile(file)


class ArrowFile:
    """A memory-mapped Arrow file, in the stream or the file format."""

    def __init__(self, file: Path):
        import pyarrow as pa

        try:
            self.table = pa.ipc.open_stream(pa.memory_map(str(file))).read_all()
        except pa.ArrowInvalid:
            self.table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        self.schema = self.table.schema

    def column(self, name: str) -> "pa.ChunkedArray":
        return self.table.column(name)

    def chunks(self, name: str) -> "Iterable[pa.Array]":
        return self.table.column(name).chunks

    def cell(self, name: str, row: int) -> Any:
        return self.table.column(name)[row].as_py()


class ParquetFile:
    """A parquet file; one row group at a time is in memory."""

    def __init__(self, file: Path):
        import pyarrow.parquet as pq

        self.file = pq.ParquetFile(file)
        self.schema = self.file.schema_arrow
        self.cached_group: tuple[int, str, Any] = (-1, "", None)  # number, column, values

    def column(self, name: str) -> "pa.ChunkedArray":
        return self.file.read([name]).column(name)

    def chunks(self, name: str) -> "Iterable[pa.Array]":
        for group in range(self.file.num_row_groups):
            yield from self.file.read_row_group(group, [name]).column(name).chunks

    def cell(self, name: str, row: int) -> Any:
        group = 0
        while row >= self.file.metadata.row_group(group).num_rows:
            row -= self.file.metadata.row_group(group).num_rows
            group += 1
        if self.cached_group[:2] != (group, name):
            self.cached_group = (group, name, self.file.read_row_group(group, [name]).column(name))
        return self.cached_group[2][row].as_py()
