"""Arrow and Parquet files: their rows without media, and single media cells."""

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def read_cell(file: Path, row: int, column: str) -> bytes:
    """The bytes in a media cell, stored directly or as {"bytes", "path"}. ValueError if the cell is empty."""
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

    def chunks(self, name: str) -> "Iterable[pa.Array]":
        return self.table.column(name).chunks

    def cell(self, name: str, row: int) -> Any:
        return self.table.column(name)[row].as_py()


class ParquetFile:
    """A Parquet file, with one row group in memory at a time."""

    def __init__(self, file: Path):
        import pyarrow.parquet as pq

        self.file = pq.ParquetFile(file)
        self.schema = self.file.schema_arrow
        self.cached_group: tuple[int, str, Any] = (-1, "", None)  # number, column, values

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


class EmbeddedMedia(str):
    """A cell with media in the table itself; the text is the path stored with them."""


@dataclass
class ArrowRows:
    """The rows of a file, without media."""

    header: list[str]
    rows: list[list[Any]]
    """A media cell is an EmbeddedMedia, a path, or None if it is empty."""
    media_columns: list[str]
    """Columns with bytes, or {"bytes", "path"} as stored by the Audio, Image and Video types."""
    feature_types: dict[str, str]
    """{column: Video, Audio, Image, ClassLabel, Value, ...}, as recorded by `datasets` in the schema."""


def read_rows(file: Path) -> ArrowRows:
    table = open_table(file)
    header, media = list(table.schema.names), media_columns(table.schema)
    columns = [
        [cell for chunk in table.chunks(name) for cell in (_media_names(chunk) if name in media else chunk.to_pylist())]
        for name in header
    ]
    return ArrowRows(header, [list(row) for row in zip(*columns, strict=True)], media, feature_types(table.schema))


def read_columns(file: Path) -> "pa.Table":
    """All columns of a file."""
    opened = open_table(file)
    return opened.table if isinstance(opened, ArrowFile) else opened.file.read()


def media_columns(schema: "pa.Schema") -> list[str]:
    """The columns of bytes, and of structs with "bytes" and "path"."""
    import pyarrow as pa

    def holds_media(kind: "pa.DataType") -> bool:
        if pa.types.is_struct(kind):
            return {kind.field(i).name for i in range(kind.num_fields)} >= {"bytes", "path"}
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    return [name for name in schema.names if holds_media(schema.field(name).type)]


def feature_types(schema: "pa.Schema") -> dict[str, str]:
    """{column: type} as recorded by `datasets` in a schema; {} without it."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return {name: feature["_type"] for name, feature in features.items() if "_type" in feature}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _media_names(chunk: "pa.Array") -> list[EmbeddedMedia | str | None]:
    """The replacement for each media cell of an Arrow array."""
    import pyarrow as pa

    structured = pa.types.is_struct(chunk.type)
    data = chunk.field("bytes") if structured else chunk
    paths = chunk.field("path").to_pylist() if structured else [None] * len(chunk)
    has_bytes = data.is_valid().to_pylist()
    return [EmbeddedMedia(path or "") if valid else path for valid, path in zip(has_bytes, paths, strict=True)]
