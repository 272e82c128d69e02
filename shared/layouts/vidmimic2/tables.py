"""The tables of Hume-Vidmimic2, including damaged ones: a bad row loses its labels, and other rows are unaffected."""

import io
import math
import os
import re
from collections import Counter
from pathlib import Path

from shared.dataset.clip import EMI, Clip
from shared.dataset.media_files import MEDIA_SUFFIXES
from shared.errors import UserError
from shared.tables.cells import MISSING_WORDS, clean, parse_number
from shared.tables.columns import normalize_name
from shared.tables.encodings import read_table_text
from shared.tables.text_table import find_header, split_line

NO_CLIP = "names no clip; left out"
"""End of the note about a row without an id."""
NO_LABELS = (math.nan,) * len(EMI)
DECIMAL_COMMA = re.compile(r"^([+-]?[01]?),(\d+(?:[eE][+-]?\d+)?)$")
"""No separator of thousands, since labels are at most 1."""
TOLERANCE = 1e-6
"""Tolerance for labels outside [0, 1]."""


def clip_id(cell: str) -> str | None:
    """Five digits for any spelling: 00007, 7, 7.0, raw/00007.mp4. Other names are kept; None without a name."""
    name = clean(cell).replace("\\", "/").rsplit("/", 1)[-1]
    stem, dot, suffix = name.rpartition(".")
    if dot and f".{suffix.lower()}" in MEDIA_SUFFIXES:
        name = stem
    if re.fullmatch(r"\d+(\.0*)?", name):
        return name.split(".")[0].zfill(5)
    return name if name and name not in MISSING_WORDS and "\ufffd" not in name else None


def read_split(table: Path, is_test: bool) -> tuple[dict[str, Clip], list[str]]:
    """{id: clip without files} and notes. Labels of a row that cannot be read are NaN, with a problem."""
    name = table.name
    if not os.path.lexists(table):
        return {}, [] if is_test else [f"{name}: missing"]
    try:
        text, reading = read_table_text(table, tolerant=True)
    except UserError as error:
        return {}, [f"{name}: cannot be read ({error})"]
    all_lines = [*io.StringIO(text, newline=""), ""]
    start = find_header(all_lines)
    reading = [f"{name}: {note}" for note in [*reading, *start.notes]]
    lines = [(i + 1, line.strip("\r\n")) for i, line in enumerate(all_lines) if i >= start.line and clean(line)]
    if not lines:
        return {}, [f"{name}: empty"]
    delimiter = start.delimiter
    header = _cells(lines[0][1], delimiter)
    columns, notes = _find_columns(header, name)
    notes = reading + notes
    if columns is None:
        return {}, notes
    rows = [_Row(f"{name} line {i}", line, delimiter, len(header)) for i, line in lines]
    is_headerless = len(notes) > len(reading) and header[0][:1].isdigit()
    rows = rows if is_headerless else rows[1:]
    _refuse_other_scale(rows, columns, table)
    clips = _clips(rows, columns, name, notes)
    if is_test and clips and all(value == 0 for clip in clips.values() for value in clip.labels):
        clips = {key: Clip(key, None, labels=NO_LABELS, problems=clip.problems) for key, clip in clips.items()}
        notes.append(f"{name}: all zeros, which are not labels")
    if not clips:
        notes.append(f"{name}: no rows")
    return clips, notes


def _refuse_other_scale(rows: list["_Row"], columns: dict[str, int], table: Path) -> None:
    """UserError if most labels above 0 are above 1: this is a copy on another scale, not a few bad cells."""
    positive = [value for row in rows for value in row.numbers(columns).values() if value is not None and value > 0]
    above = [value for value in positive if value > 1 + TOLERANCE]
    if 2 * len(above) > len(positive):
        raise UserError(
            f"{table}: {len(above)} of {len(positive)} labels above 0 are above 1 (up to {max(above):g}), but "
            "Hume-Vidmimic2 has labels in [0, 1]: divide them, or read the table with --layout csv and --label_range"
        )


def _clips(rows: list["_Row"], columns: dict[str, int], name: str, notes: list[str]) -> dict[str, Clip]:
    """{id: clip} from the rows of table `name`; rows without an id are added to the notes."""
    clips: dict[str, Clip] = {}
    count = Counter(row.id(columns) for row in rows)
    for row in rows:
        identifier = row.id(columns)
        if identifier is None:
            notes.append(f"{row.where}: {NO_CLIP}")
            continue
        clip = row.clip(identifier, columns)
        previous = clips.setdefault(identifier, clip)
        if previous is clip:
            continue
        problem, labels = f"is {count[identifier]} times in {name}", previous.labels
        if repr(previous.labels) != repr(clip.labels):  # NaN equals NaN as text
            problem, labels = f"{problem} with different labels; none is read", NO_LABELS
        problems = previous.problems if problem in previous.problems else (*previous.problems, problem)
        clips[identifier] = Clip(identifier, None, labels=labels, problems=problems)
    return clips


def _cells(line: str, delimiter: str) -> list[str]:
    """The cells of a single line: a stray quotation mark must not swallow the lines after it."""
    return [clean(cell) for cell in split_line(line, delimiter)]


def _find_columns(header: list[str], name: str) -> tuple[dict[str, int] | None, list[str]]:
    """Positions of "Filename" and of the labels, ignoring case, spaces and underscores; None if they cannot be
    determined."""
    names = [normalize_name(cell) for cell in header]
    wanted = {column: normalize_name(column) for column in ("Filename", *EMI)}
    columns = {column: names.index(word) for column, word in wanted.items() if word in names}
    absent = [column for column in wanted if column not in columns]
    if not absent:
        return columns, []
    if len(header) == len(wanted) and len(absent) > len(wanted) // 2:
        return {column: i for i, column in enumerate(wanted)}, [
            f"{name}: its header is not readable ({', '.join(header)[:80]}); assuming the official order of columns"
        ]
    if "Filename" in absent:
        return None, [f"{name}: no column Filename, so its rows are left out (columns: {', '.join(header)[:80]})"]
    return columns, [f"{name}: no column for {', '.join(absent)}"]


class _Row:
    """A line of a table of `width` columns."""

    def __init__(self, where: str, line: str, delimiter: str, width: int):
        self.where, self.delimiter, self.width = where, delimiter, width
        self.problems: list[str] = []
        self.cells = _cells(line, delimiter)
        while len(self.cells) > width and self.cells[-1] == "":
            self.cells.pop()  # a trailing separator
        others = [other for other in ",;\t" if other != delimiter and len(_cells(line, other)) == width]
        if not self.is_intact and others:
            self.delimiter, self.cells = others[0], _cells(line, others[0])
            self.problems.append(f"{where}: separated by {others[0]!r}, unlike the header")

    @property
    def is_intact(self) -> bool:
        return len(self.cells) == self.width

    def id(self, columns: dict[str, int]) -> str | None:
        """None if the row names no clip; in a damaged row, only digits count as a name."""
        position = columns["Filename"]
        name = clip_id(self.cells[position]) if position < len(self.cells) else None
        return name if name and (self.is_intact or name.isdigit()) else None

    def numbers(self, columns: dict[str, int]) -> dict[str, float | None]:
        """{dimension: number}: NaN for an empty cell, None for anything else; {} for a damaged row."""
        if not self.is_intact:
            return {}
        numbers = {}
        for name in EMI:
            cell = self.cell(name, columns)
            numbers[name] = parse_number(cell if self.delimiter == "," else DECIMAL_COMMA.sub(r"\1.\2", cell))
        return numbers

    def cell(self, name: str, columns: dict[str, int]) -> str:
        return self.cells[columns[name]] if name in columns else ""

    def clip(self, identifier: str, columns: dict[str, int]) -> Clip:
        """The clip with the row's labels. A label outside [0, 1] is NaN, with a problem."""
        problems = list(self.problems)
        if not self.is_intact:
            problems.append(f"{self.where}: {len(self.cells)} cells instead of {self.width}; labels not read")
            return Clip(identifier, None, labels=NO_LABELS, problems=tuple(problems))
        labels = []
        for column, value in self.numbers(columns).items():
            if value is None or value < -TOLERANCE or value > 1 + TOLERANCE:
                problems.append(
                    f"{self.where}: {column} is {self.cell(column, columns)!r}, not a number in [0, 1]; not read"
                )
                value = math.nan
            elif math.isnan(value) and column in columns:
                problems.append(f"{self.where}: {column} is empty")
            labels.append(value if math.isnan(value) else min(1.0, max(0.0, value)))
        return Clip(identifier, None, labels=tuple(labels), problems=tuple(problems))
