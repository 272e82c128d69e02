"""Delimited tables (CSV, TSV, exports of spreadsheets): separators, encodings, and rows with damaged quotation marks.

`read_table` (formats.py) reads a table in any format.
"""

import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from shared.errors import UserError

OPEN_QUOTE = "a quotation mark is left open"


@dataclass(frozen=True)
class TableRow:
    """A row of a table."""

    line: int
    """Its first line in the file, counted from 1."""
    cells: list[str]
    """Stripped; as many as there are columns."""
    problem: str = ""
    """Why cells may be under the wrong column; "" for an intact row."""


@dataclass
class TextTable:
    """A table as it was read."""

    header: list[str]
    rows: list[TableRow]
    notes: list[str]
    """What a person should check."""


def read_delimited(path: Path) -> TextTable:
    """Column names, and the rows that are not blank.

    A row with more cells than the header says so in `problem`. One with fewer cells is counted in the notes, and its
    missing cells are empty. A quotation mark that is left open affects its own row only. UserError when the file is not
    a table, or a column name occurs twice.
    """
    text = read_table_text(path)
    # The extra line lets a quotation mark that is open in the last line run past it.
    lines = [*io.StringIO(text, newline=""), ""]
    start = next((i for i, line in enumerate(lines) if line.strip("\r\n")), 0)
    delimiter = guess_delimiter(lines[start])
    header, line_count, problem = _read_record(lines, start, delimiter)
    header = [name.strip() for name in header]
    if problem:
        raise UserError(f"{path}: line {start + 1}: {problem}; close it")
    repeated = [name for name, count in Counter(header).items() if name and count > 1]
    if repeated:
        raise UserError(f"{path}: two columns are called {repeated[0]!r}; rename one")
    rows, notes = _read_rows(lines, start + line_count, header, delimiter)
    if not rows:
        raise UserError(f"{path}: needs a header and at least one row")
    return TextTable(header, rows, notes)


def _read_rows(lines: list[str], start: int, header: list[str], delimiter: str) -> tuple[list[TableRow], list[str]]:
    """The rows from line `start` on, and notes about those that look wrong."""
    rows: list[TableRow] = []
    suspicious, short = [], []
    while start < len(lines) - 1:
        cells, line_count, problem = _read_record(lines, start, delimiter)
        inner_rows = [
            line
            for line in lines[start + 1 : start + line_count]
            if len(header) > 1 and _fits(split_line(line, delimiter), header)
        ]
        if inner_rows and not _fits(cells, header):  # the quotation mark closes in another row
            cells, line_count, problem = split_line(lines[start], delimiter), 1, OPEN_QUOTE
        elif inner_rows:
            suspicious.append(start + 1)
        if any(cell.strip() for cell in cells):
            if not problem and len(cells) <= len(header) and not _fits(cells, header):
                short.append(start + 1)
            elif not _fits(cells, header):
                problem = problem or f"{len(cells)} cells instead of {len(header)}"
            cells = [cell.strip() for cell in cells[: len(header)]]
            rows.append(TableRow(start + 1, cells + [""] * (len(header) - len(cells)), problem))
        start += line_count
    notes = []
    if suspicious:
        notes.append(
            f"{len(suspicious)} rows of several lines hold what looks like further rows, such as line {suspicious[0]}; "
            "check for a stray quotation mark"
        )
    if short:
        notes.append(
            f"{len(short)} rows have fewer cells than the header, such as line {short[0]}; the missing cells count as "
            "empty"
        )
    return rows, notes


def _read_record(lines: list[str], start: int, delimiter: str) -> tuple[list[str], int, str]:
    """The cells of the record that starts in line `start`, its number of lines, and its problem. A quoted cell may span
    lines; a record whose quotation mark is not closed properly is its first line alone."""
    reader = csv.reader((lines[i] for i in range(start, len(lines))), delimiter=delimiter, strict=True)
    try:
        return next(reader), reader.line_num, ""
    except csv.Error:
        return split_line(lines[start], delimiter), 1, OPEN_QUOTE if reader.line_num > 1 else ""


def split_line(line: str, delimiter: str) -> list[str]:
    """The cells of one line, whatever its quotation marks."""
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:  # longer than the csv module reads
        return line.split(delimiter)


def _fits(cells: list[str], header: list[str]) -> bool:
    """Whether there are as many cells as columns, apart from blank ones at the end."""
    used_cells = max((i + 1 for i, cell in enumerate(cells) if cell.strip()), default=0)
    named_columns = max((i + 1 for i, name in enumerate(header) if name), default=0)
    return used_cells <= len(header) and named_columns <= len(cells)


def read_table_text(path: Path) -> str:
    """The text of a table. UserError when it cannot be read."""
    try:
        return read_text(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such table; name a .csv, or a folder that holds a labels.csv") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable UTF-8 table ({error})") from None


def read_text(path: Path, errors: str = "strict") -> str:
    """UTF-8, or UTF-16 when the file starts with its byte order mark; the mark is removed."""
    data = Path(path).read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors=errors)
    return data.decode("utf-8-sig", errors=errors)


def guess_delimiter(text: str) -> str:
    """The comma, semicolon or tab that is most frequent in the first line."""
    return max(",;\t", key=text.split("\n", 1)[0].count)
