"""The table formats: which suffixes are tables, and the function that reads any of them."""

from collections.abc import Callable
from pathlib import Path

from shared.errors import UserError
from shared.tables.columns import GROUP_NAMES, KNOWN_NAMES, normalize_name
from shared.tables.decimal_commas import convert_decimal_commas
from shared.tables.encodings import AS_CSV
from shared.tables.json_lines import read_json_lines
from shared.tables.text_table import TextTable, read_delimited

READERS: dict[str, Callable[[Path, str], TextTable]] = {
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".tab": read_delimited,
    ".txt": read_delimited,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
}
"""Suffix -> reader of a path and an encoding."""
SPREADSHEETS = (".xlsx", ".xlsm", ".xls", ".xlsb", ".ods", ".numbers")
UNSUPPORTED = {
    **dict.fromkeys(SPREADSHEETS, AS_CSV),
    ".json": "save it as CSV, or as .jsonl with one object a line",
    ".feather": "save it as CSV",
    ".gz": "unpack it",
    ".zip": "unpack it",
    ".bz2": "unpack it",
    ".xz": "unpack it",
    ".zst": "unpack it",
    ".pkl": "save it as CSV",
    ".pickle": "save it as CSV",
    ".sav": "save it as CSV",
    ".dta": "save it as CSV",
    ".rds": "save it as CSV",
}
"""Suffixes of unsupported tables -> what to do."""


def is_table(path: Path) -> bool:
    """Whether `read_table` reads files with this suffix. UserError for tables in an unsupported format."""
    suffix = path.suffix.lower()
    if suffix in UNSUPPORTED and suffix not in READERS:
        raise UserError(f"{path}: tables in {suffix} are not read; {UNSUPPORTED[suffix]}")
    return suffix in READERS


def read_records(path: Path) -> list[dict[str, str]]:
    """The rows of a table as {column: cell}. UserError as in `read_table`, and for a damaged row."""
    table = read_table(path)
    damaged = next((row for row in table.rows if row.problem), None)
    if damaged is not None:
        raise UserError(f"{path}: line {damaged.line}: {damaged.problem}")
    return [dict(zip(table.header, row.cells, strict=True)) for row in table.rows]


def read_table(path: Path, encoding: str = "") -> TextTable:
    """Column names, and the rows that are not blank; numbers have decimal points. A file with an unknown suffix is read
    as delimited text. encoding: see `read_table_text`. UserError if the file is not a table, or its format is
    unsupported."""
    table = (READERS[path.suffix.lower()] if is_table(path) else read_delimited)(path, encoding)
    names = [normalize_name(name) for name in table.header]
    texts = [i for i, name in enumerate(names) if name in KNOWN_NAMES or name.removesuffix("id") in GROUP_NAMES]
    table.rows, notes = convert_decimal_commas(table.header, table.rows, texts)
    return TextTable(table.header, table.rows, table.notes + notes)
