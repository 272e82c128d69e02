"""Delimited tables (CSV, TSV, spreadsheet exports): separators, and rows with damaged quotation marks.

`read_table` (formats.py) reads a table in any format.
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shared.dataset.media_files import MEDIA_SUFFIXES
from shared.errors import UserError
from shared.tables.cells import clean
from shared.tables.columns import KNOWN_NAMES, normalize_name
from shared.tables.encodings import read_table_text
from shared.text import counted

OPEN_QUOTE = "a quotation mark is left open"
DELIMITERS = "\t;|,"
"""In order of preference if several fit equally well: names and texts often contain commas."""
SAMPLE_LINES = 50
"""Lines to guess the separator from."""
MAX_CELL = 10_000_000
"""Characters. The limit also bounds the search for the end of an unclosed quotation mark."""
_EXCEL_FIRST_LINE = re.compile(r'"?sep=(?P<delimiter>.|\\t)"?[;,\t|"]*', re.IGNORECASE)
csv.field_size_limit(MAX_CELL)


@dataclass(frozen=True)
class TableRow:
    """A row of a table."""

    line: int
    """Its first line in the file, counted from 1."""
    cells: list[str]
    """Stripped cells, one per column."""
    problem: str = ""
    """Why cells may be under the wrong column; "" for an intact row."""


@dataclass
class TextTable:
    """The content of a table."""

    header: list[str]
    rows: list[TableRow]
    notes: list[str]
    """Notes for a person to check."""


def read_delimited(path: Path, encoding: str = "") -> TextTable:
    """Column names, and the rows that are not blank.

    A row with more cells than the header says so in `problem`. A row with fewer cells is counted in the notes, and its
    missing cells are empty. An unclosed quotation mark affects only its own row. Comment lines (#) and Excel's first
    line (sep=;) are not rows. encoding: see `read_table_text`. UserError if the file is not a table, has no header, no
    row fits the header, or a column name occurs twice.
    """
    text, notes = read_table_text(path, encoding)
    if re.match(r'\s*(\{\s*"|\[\s*[{\["])', text):
        raise UserError(f"{path}: contains JSON; rename it to .jsonl if each line is an object, or save it as CSV")
    # The extra line lets an unclosed quotation mark in the last line run past it.
    lines = [*io.StringIO(text, newline=""), ""]
    start = find_header(lines)
    notes = notes + start.notes
    header, line_count, problem = _read_record(lines, start.line, start.delimiter)
    header = [clean(name) for name in header]
    header = [header[0].lstrip("# "), *header[1:]] if header else header
    _check_header(f"{path}: line {start.line + 1}", header, problem)
    reader = _RowReader(lines, header, start.delimiter)
    rows = reader.read(start.line + line_count)
    if not rows:
        raise UserError(f"{path}: needs a header and at least one row")
    if all(row.problem for row in rows) and not any(OPEN_QUOTE in row.problem for row in rows):
        first = rows[0]
        raise UserError(
            f"{path}: no row fits the header of {len(header)} columns in line {start.line + 1}; line {first.line} has "
            f"{first.problem}; quote cells with commas, or use another separator"
        )
    return TextTable(header, rows, notes + reader.notes())


@dataclass
class TableStart:
    """The start of a table."""

    line: int
    """Index of the header among the lines."""
    delimiter: str
    notes: list[str] = field(default_factory=list)


def find_header(lines: Sequence[str]) -> TableStart:
    """The header: the first line that is not blank, not Excel's sep=, and not a comment."""
    notes: list[str] = []
    delimiter = ""
    i = _next_line(lines, 0)
    excel = _EXCEL_FIRST_LINE.fullmatch(lines[i].strip("\r\n \ufeff"))
    if excel:
        delimiter = excel["delimiter"].replace("\\t", "\t")
        notes.append(f"separated by {delimiter!r}, as its first line says")
        i = _next_line(lines, i + 1)
    begin, comments = i, 0
    following = next((k for k in range(i, len(lines)) if clean(lines[k]) and not clean(lines[k]).startswith("#")), i)
    separator = delimiter or guess_delimiter(lines[following:])
    while i < following and not _is_header(lines[i], lines[following], separator):
        i, comments = _next_line(lines, i + 1), comments + 1
    if comments:
        notes.append(
            f"{counted(comments, 'line')} of comments before the header are left out, from line {begin + 1} on"
        )
    return TableStart(i, delimiter or guess_delimiter(lines[i:]), notes)


def _is_header(comment: str, following: str, delimiter: str) -> bool:
    """Whether a line that begins with # is the header: it has as many cells as the line below, and column names if the
    line below has any."""
    names, below = split_line(clean(comment).lstrip("# "), delimiter), split_line(following, delimiter)
    return len(names) == len(below) and (_usual_names(names) >= _usual_names(below))


def _usual_names(cells: Sequence[str]) -> int:
    """How many cells are usual names of columns."""
    return sum(normalize_name(cell) in KNOWN_NAMES for cell in cells)


def _next_line(lines: Sequence[str], start: int) -> int:
    """The first non-blank line from `start` on; the last line if all are blank."""
    return next((i for i in range(start, len(lines)) if clean(lines[i])), max(len(lines) - 1, 0))


def _check_header(where: str, header: list[str], problem: str) -> None:
    """UserError if the line cannot be a header."""
    if problem:
        raise UserError(f"{where}: {problem}; close it")
    suffixes = tuple(suffix for suffix in MEDIA_SUFFIXES if suffix != ".ts")  # also the ending of a name for timestamps
    media = [name for name in header if name.lower().endswith(suffixes) and not name.startswith(".")]
    if media:
        raise UserError(f"{where}: {media[0]!r} is a file, not the name of a column; add a header, such as path,Joy")
    if any("\0" in name for name in header):
        raise UserError(f"{where}: contains NUL bytes; export the table again")
    positions: dict[str, int] = {}
    for i, name in enumerate(header, 1):
        if name and name in positions:
            raise UserError(f"{where}: two columns are called {name!r}, number {positions[name]} and {i}; rename one")
        positions[name] = i


class _RowReader:
    """Reads the rows below a header, and collects notes for a person to check."""

    def __init__(self, lines: Sequence[str], header: list[str], delimiter: str):
        self.lines, self.header, self.delimiter = lines, header, delimiter
        self.suspicious: list[int] = []
        self.short: list[int] = []
        self.comments: list[int] = []
        self.escaped: list[int] = []
        self.zeros: list[int] = []

    def read(self, start: int) -> list[TableRow]:
        """The rows from line `start` on."""
        rows: list[TableRow] = []
        while start < len(self.lines) - 1:
            cells, line_count, problem = self._record(start)
            if any(clean(cell.replace("\0", "")) for cell in cells):
                row = self._row(start + 1, cells, problem)
                rows += [row] if row is not None else []
            elif any("\0" in cell for cell in cells):
                self.zeros.append(start + 1)
            start += line_count
        return rows

    def notes(self) -> list[str]:
        texts = {
            (
                "row",
                "of several lines: what looks like further rows, such as line {}; check for a stray quotation mark",
            ): (self.suspicious),
            ("row", "with fewer cells than the header, such as line {}; the missing cells count as empty"): self.short,
            ("line", "of comments left out, such as line {}"): self.comments,
            (
                "row",
                'with quotation marks written as \\", such as line {}; they are read as quotation marks',
            ): self.escaped,
            ("line", "of nothing but NUL bytes, such as line {}; was the file copied completely?"): self.zeros,
        }
        return [
            f"{counted(len(lines), word)} {text.format(lines[0])}" for (word, text), lines in texts.items() if lines
        ]

    def _record(self, start: int) -> tuple[list[str], int, str]:
        """As `_read_record`, with this table's width if possible."""
        header = self.header
        cells, line_count, problem = _read_record(self.lines, start, self.delimiter)
        inner = self._inner_rows(start, line_count)
        if '\\"' in self.lines[start] and not (self._is_strict(start, line_count) and not inner and self._fits(cells)):
            lines = [line.replace('\\"', '""') for line in self.lines[start : start + 100]]
            others, other_count, other_problem = _read_record([*lines, ""], 0, self.delimiter)
            if not other_problem and self._fits(others) and not self._inner_rows(start, other_count):
                self.escaped.append(start + 1)
                return others, other_count, ""
        if inner and not self._fits(cells):  # the closing quotation mark is in another row
            return split_line(self.lines[start], self.delimiter), 1, OPEN_QUOTE
        if inner and len(header) > 1:
            self.suspicious.append(start + 1)
        return cells, line_count, problem

    def _is_strict(self, start: int, line_count: int) -> bool:
        """Whether the quotation marks of a record follow RFC 4180."""
        try:
            lines = self.lines[start : start + line_count]
            return len(list(csv.reader(lines, delimiter=self.delimiter, strict=True))) == 1
        except csv.Error:
            return False

    def _inner_rows(self, start: int, line_count: int) -> bool:
        """Whether a record of several lines contains what looks like further rows."""
        inner = self.lines[start + 1 : start + line_count]
        return len(self.header) > 1 and any(self._fits(split_line(line, self.delimiter)) for line in inner)

    def _row(self, line: int, cells: list[str], problem: str) -> TableRow | None:
        """The row; None for a comment."""
        header, fits = self.header, self._fits(cells)
        if not fits and len(header) > 1 and clean(cells[0]).startswith("#"):
            self.comments.append(line)
            return None
        if not problem and len(cells) <= len(header) and not fits:
            self.short.append(line)
        elif not fits:
            problem = problem or f"{len(cells)} cells instead of {len(header)}"
        if any("\0" in cell for cell in cells):
            problem = problem or "NUL bytes"
        cells = [clean(cell.replace("\0", "")) for cell in cells[: len(header)]]
        return TableRow(line, cells + [""] * (len(header) - len(cells)), problem)

    def _fits(self, cells: list[str]) -> bool:
        """Whether there are as many cells as columns, ignoring blank ones at the end."""
        used_cells = max((i + 1 for i, cell in enumerate(cells) if clean(cell)), default=0)
        named_columns = max((i + 1 for i, name in enumerate(self.header) if name), default=0)
        return used_cells <= len(self.header) and named_columns <= len(cells)


def _read_record(lines: Sequence[str], start: int, delimiter: str) -> tuple[list[str], int, str]:
    """The cells of the record that starts in line `start`, its number of lines, and its problem. A quoted cell may span
    lines; a record with an improperly closed quotation mark is only its first line."""
    reader = csv.reader((lines[i] for i in range(start, len(lines))), delimiter=delimiter, strict=True)
    try:
        return next(reader), reader.line_num, ""
    except csv.Error:
        return split_line(lines[start], delimiter), 1, OPEN_QUOTE if reader.line_num > 1 else ""


def split_line(line: str, delimiter: str) -> list[str]:
    """The cells of one line; quotation marks that do not enclose a cell are part of it."""
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:
        cells, line = [], line.rstrip("\r\n")
    end = re.escape(delimiter)
    cell = re.compile(
        rf'"(?P<quoted>(?:[^"]|"")*)"(?={end}|$)|"(?:[^"]|"")*"[^{end}]*|"(?P<open>.*)|[^{end}]*', re.DOTALL
    )
    position = 0
    while True:
        match = cell.match(line, position)
        assert match is not None  # the last alternative fits any text
        text = match["quoted"] if match["quoted"] is not None else match["open"]
        cells.append(match[0] if text is None else text.replace('""', '"'))
        position = match.end() + 1
        if match.end() >= len(line):
            return cells


def guess_delimiter(lines: Sequence[str]) -> str:
    """The separator that splits the first lines into the most cells, with as many as the header has."""
    header, rows = lines[0] if lines else "", [line for line in lines[1:SAMPLE_LINES] if clean(line)]

    def quality(delimiter: str) -> tuple[float, int]:
        columns = len(split_line(header, delimiter))
        fitting = sum(len(split_line(row, delimiter)) == columns for row in rows)
        return (-1, 0) if columns < 2 else (fitting / len(rows) if rows else 1.0, columns)

    return max(DELIMITERS, key=quality) if any(quality(d)[0] >= 0 for d in DELIMITERS) else ","
