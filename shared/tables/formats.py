"""The table formats: which suffixes are tables, and the function that reads any of them."""

from collections.abc import Callable
from pathlib import Path

from shared.errors import UserError
from shared.tables.json_lines import read_json_lines
from shared.tables.text_table import TextTable, read_delimited

READERS: dict[str, Callable[[Path], TextTable]] = {
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".txt": read_delimited,
    ".jsonl": read_json_lines,
}
"""Suffix -> reader."""
UNSUPPORTED = (".xlsx", ".xls", ".ods", ".json", ".feather")
"""Suffixes of tables that are not read."""


def is_table(path: Path) -> bool:
    """Whether `read_table` reads files with this suffix. UserError for tables in a format that it does not read."""
    suffix = path.suffix.lower()
    if suffix in UNSUPPORTED and suffix not in READERS:
        raise UserError(f"{path}: tables in {suffix} are not read; save it as CSV")
    return suffix in READERS


def read_table(path: Path) -> TextTable:
    """Column names, and the rows that are not blank. A file with an unknown suffix is read as delimited text. UserError
    when the file is not a table, or its format is not read."""
    return READERS[path.suffix.lower()](path) if is_table(path) else read_delimited(path)
